// Programs started with an argument vector, in a network namespace if wanted. No shell.
//
// Threading: functions may be called from any thread; a Process object from one at a time. Every program is started by
// posix_spawnp with SIGPIPE, signal mask and session as stated below, and inherits no descriptor but 0 to 2.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/result.h"

namespace sami::lab {

struct RunOptions {
  std::string network_namespace;              // empty: the caller's
  std::string input;                          // fed to standard input
  std::chrono::milliseconds deadline{20000};  // then it is killed, and the result is an error
  bool ignore_status = false;                 // else an exit status other than 0 is an error with its standard error
};
struct RunResult {
  int status = 0;
  std::string output;
  std::string error_output;
};

// Runs a program to its end. Errors: Failed (cannot start, status not 0; the message has the program's own words),
// Retry (deadline).
Result<RunResult> run(const std::vector<std::string>& arguments, const RunOptions& options = {});

// Names one process for good: pids are reused, a pid with its start time is not.
struct ProcessIdentity {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // clock ticks since boot, /proc/<pid>/stat field 22
};
std::optional<ProcessIdentity> identify_process(pid_t pid);  // nothing when there is no such process, or a zombie
bool is_running(const ProcessIdentity& process);

// SIGTERM, and SIGKILL after `patience`. Returns when it has ended. A process that is not running is no error.
Result<void> stop_process(const ProcessIdentity& process, std::chrono::milliseconds patience = std::chrono::seconds(5));
Result<void> signal_process(const ProcessIdentity& process, int signal);

// Starts a program that outlives the caller: own session, standard input empty, both outputs appended to `log_file`.
Result<ProcessIdentity> start_daemon(const std::vector<std::string>& arguments, const std::string& network_namespace,
                                     const std::string& log_file);

// A program we talk to by lines over its standard input and output. Its standard input closes when this object goes,
// or when the caller's process dies in whatever way; programs that are meant for this take that as "stop".
class Conversation {
 public:
  // Error output goes to the caller's.
  static Result<Conversation> start(const std::vector<std::string>& arguments, const std::string& network_namespace);
  Conversation(Conversation&& other) noexcept;
  Conversation& operator=(Conversation&& other) noexcept;
  ~Conversation();  // close_input, then stop_process after a second

  Result<void> say(const std::string& line);  // adds the newline
  // The next line without its newline. Errors: Retry (deadline), Reconnect (the program has ended).
  Result<std::string> hear(std::chrono::milliseconds deadline);
  void close_input();
  const ProcessIdentity& identity() const { return identity_; }

 private:
  Conversation(ProcessIdentity identity, int input, int output);
  void end();

  ProcessIdentity identity_;
  int input_ = -1;
  int output_ = -1;
  std::string buffer_;
};

}  // namespace sami::lab
