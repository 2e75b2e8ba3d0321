#include "lab/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "lab/namespace.h"
#include "lab/poll.h"

extern char** environ;

namespace sami::lab {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct Pipe {
  int read_end = -1;
  int write_end = -1;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return failure(ErrorKind::Failed, "cannot make a pipe", errno);
  return Pipe{ends[0], ends[1]};
}

void close_all(std::initializer_list<int> descriptors) {
  for (const int descriptor : descriptors) {
    if (descriptor >= 0) ::close(descriptor);
  }
}

// The program's descriptors 0 to 2; all our other descriptors are close-on-exec.
Result<pid_t> spawn(const std::vector<std::string>& arguments, const std::string& network_namespace, int input,
                    int output, int error_output, bool own_session) {
  std::vector<char*> raw;
  for (const auto& argument : arguments) raw.push_back(const_cast<char*>(argument.c_str()));
  raw.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, 0);
  posix_spawn_file_actions_adddup2(&actions, output, 1);
  posix_spawn_file_actions_adddup2(&actions, error_output, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  const int session = own_session ? POSIX_SPAWN_SETSID : 0;
  posix_spawnattr_setflags(&attributes, static_cast<short>(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | session));

  pid_t pid = -1;
  int refused = 0;
  // A thread's children are born in its namespace.
  auto entered = inside_namespace(
      network_namespace, [&] { refused = ::posix_spawnp(&pid, raw[0], &actions, &attributes, raw.data(), environ); });
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (!entered) return tl::unexpected(entered.error());
  if (refused != 0) {
    return failure(ErrorKind::Failed, fmt::format("cannot start {}: {}", arguments[0], std::strerror(refused)),
                   refused);
  }
  return pid;
}

// A program that stops reading must not end us: while this lives, a write to it fails with EPIPE instead.
class BrokenPipesAreErrors {
 public:
  BrokenPipesAreErrors() {
    sigemptyset(&signal_);
    sigaddset(&signal_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &signal_, &before_);
  }
  ~BrokenPipesAreErrors() {
    const timespec immediately{};
    while (sigtimedwait(&signal_, nullptr, &immediately) > 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  BrokenPipesAreErrors(const BrokenPipesAreErrors&) = delete;
  BrokenPipesAreErrors& operator=(const BrokenPipesAreErrors&) = delete;

 private:
  sigset_t signal_;
  sigset_t before_;
};

int left_until(SteadyClock::time_point end) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - SteadyClock::now()).count();
  return left > 0 ? static_cast<int>(left) + 1 : 0;
}

// Feeds and drains the program's pipes until both outputs are closed. False: the deadline passed.
bool exchange(const RunOptions& options, int& input, int output, int error_output, RunResult& result) {
  const BrokenPipesAreErrors guard;
  ::fcntl(input, F_SETFL, O_NONBLOCK);
  const auto end = SteadyClock::now() + options.deadline;
  std::size_t fed = 0;
  int open_outputs = 2;
  std::array<pollfd, 3> waiting{pollfd{input, POLLOUT, 0}, pollfd{output, POLLIN, 0}, pollfd{error_output, POLLIN, 0}};
  if (options.input.empty()) {
    ::close(input);
    input = waiting[0].fd = -1;
  }
  std::array<char, 65536> bytes;
  while (open_outputs > 0) {
    const int ready = ::poll(waiting.data(), waiting.size(), left_until(end));
    if (ready == 0) return false;
    if (ready < 0) continue;
    if (waiting[0].fd >= 0 && waiting[0].revents != 0) {
      const auto count = ::write(input, options.input.data() + fed, options.input.size() - fed);
      if (count > 0) fed += static_cast<std::size_t>(count);
      if ((count < 0 && errno != EAGAIN) || fed == options.input.size()) {
        ::close(input);
        input = waiting[0].fd = -1;
      }
    }
    for (std::size_t i = 1; i < waiting.size(); ++i) {
      if (waiting[i].fd < 0 || waiting[i].revents == 0) continue;
      const auto count = ::read(waiting[i].fd, bytes.data(), bytes.size());
      if (count > 0) {
        (i == 1 ? result.output : result.error_output).append(bytes.data(), static_cast<std::size_t>(count));
      } else {
        waiting[i].fd = -1;
        --open_outputs;
      }
    }
  }
  return true;
}

}  // namespace

Result<RunResult> run(const std::vector<std::string>& arguments, const RunOptions& options) {
  auto input = make_pipe();
  if (!input) return tl::unexpected(input.error());
  auto output = make_pipe();
  auto error_output = make_pipe();
  if (!output || !error_output) return failure(ErrorKind::Failed, "cannot make a pipe", errno);
  auto pid =
      spawn(arguments, options.network_namespace, input->read_end, output->write_end, error_output->write_end, false);
  close_all({input->read_end, output->write_end, error_output->write_end});
  if (!pid) {
    close_all({input->write_end, output->read_end, error_output->read_end});
    return tl::unexpected(pid.error());
  }
  RunResult result;
  const bool in_time = exchange(options, input->write_end, output->read_end, error_output->read_end, result);
  if (!in_time) ::kill(*pid, SIGKILL);
  close_all({input->write_end, output->read_end, error_output->read_end});
  int status = 0;
  while (::waitpid(*pid, &status, 0) < 0 && errno == EINTR) {
  }
  const std::string line = fmt::format("{}", fmt::join(arguments, " "));
  if (!in_time) {
    return failure(ErrorKind::Retry, fmt::format("{}: not done after {} ms", line, options.deadline.count()));
  }
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (result.status != 0 && !options.ignore_status) {
    return failure(ErrorKind::Failed, fmt::format("{}{}{}: status {}: {}", options.network_namespace,
                                                  options.network_namespace.empty() ? "" : ": ", line, result.status,
                                                  result.error_output));
  }
  return result;
}

std::optional<ProcessIdentity> identify_process(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto after_name = text.rfind(')');
  if (pid <= 0 || after_name == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(after_name + 1));
  std::string field;
  ProcessIdentity identity{pid, 0};
  for (int number = 3; fields >> field; ++number) {
    if (number == 3 && (field == "Z" || field == "X")) return std::nullopt;
    if (number == 22) {
      identity.start_time = std::stoull(field);
      return identity;
    }
  }
  return std::nullopt;
}

bool is_running(const ProcessIdentity& process) {
  ::waitpid(process.pid, nullptr, WNOHANG);  // if it is a child of ours that has ended, let it go
  const auto present = identify_process(process.pid);
  return present && present->start_time == process.start_time;
}

Result<void> signal_process(const ProcessIdentity& process, int signal) {
  if (!is_running(process)) return {};
  if (::kill(process.pid, signal) != 0 && errno != ESRCH) {
    return failure(ErrorKind::Failed, fmt::format("cannot signal process {}: {}", process.pid, std::strerror(errno)),
                   errno);
  }
  return {};
}

Result<void> stop_process(const ProcessIdentity& process, std::chrono::milliseconds patience) {
  const auto ended = [&] { return !is_running(process); };
  for (const auto& [signal, wait] : {std::pair{SIGTERM, patience}, std::pair{SIGKILL, milliseconds(5000)}}) {
    auto sent = signal_process(process, signal);
    if (!sent) return sent;
    if (poll_until(wait, ended)) return {};
  }
  return failure(ErrorKind::Failed, fmt::format("process {} does not end", process.pid));
}

Result<ProcessIdentity> start_daemon(const std::vector<std::string>& arguments, const std::string& network_namespace,
                                     const std::string& log_file) {
  const int input = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int log = ::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) {
    close_all({input});
    return failure(ErrorKind::Failed, fmt::format("cannot write {}: {}", log_file, std::strerror(errno)), errno);
  }
  auto pid = spawn(arguments, network_namespace, input, log, log, true);
  close_all({input, log});
  if (!pid) return tl::unexpected(pid.error());
  auto identity = identify_process(*pid);
  if (!identity) return failure(ErrorKind::Failed, fmt::format("{} ended at once; see {}", arguments[0], log_file));
  return *identity;
}

Result<Conversation> Conversation::start(const std::vector<std::string>& arguments,
                                         const std::string& network_namespace) {
  auto input = make_pipe();
  if (!input) return tl::unexpected(input.error());
  auto output = make_pipe();
  if (!output) return tl::unexpected(output.error());
  auto pid = spawn(arguments, network_namespace, input->read_end, output->write_end, 2, false);
  close_all({input->read_end, output->write_end});
  if (!pid) {
    close_all({input->write_end, output->read_end});
    return tl::unexpected(pid.error());
  }
  const auto identity = identify_process(*pid).value_or(ProcessIdentity{*pid, 0});
  return Conversation(identity, input->write_end, output->read_end);
}

Conversation::Conversation(ProcessIdentity identity, int input, int output)
    : identity_(identity), input_(input), output_(output) {}

Conversation::Conversation(Conversation&& other) noexcept
    : identity_(std::exchange(other.identity_, {})),
      input_(std::exchange(other.input_, -1)),
      output_(std::exchange(other.output_, -1)),
      buffer_(std::move(other.buffer_)) {}

Conversation& Conversation::operator=(Conversation&& other) noexcept {
  if (this != &other) {
    end();
    identity_ = std::exchange(other.identity_, {});
    input_ = std::exchange(other.input_, -1);
    output_ = std::exchange(other.output_, -1);
    buffer_ = std::move(other.buffer_);
  }
  return *this;
}

Conversation::~Conversation() { end(); }

void Conversation::end() {
  close_input();
  if (identity_.pid > 0 && !poll_until(milliseconds(1000), [&] { return !is_running(identity_); })) {
    (void)stop_process(identity_, milliseconds(0));
  }
  close_all({std::exchange(output_, -1)});
  identity_ = {};
}

void Conversation::close_input() { close_all({std::exchange(input_, -1)}); }

Result<void> Conversation::say(const std::string& line) {
  const std::string bytes = line + "\n";
  const BrokenPipesAreErrors guard;
  const auto written = ::write(input_, bytes.data(), bytes.size());
  if (written != static_cast<ssize_t>(bytes.size())) {
    return failure(ErrorKind::Reconnect, fmt::format("process {} does not listen", identity_.pid), errno);
  }
  return {};
}

Result<std::string> Conversation::hear(std::chrono::milliseconds deadline) {
  const auto end = SteadyClock::now() + deadline;
  while (true) {
    if (const auto newline = buffer_.find('\n'); newline != std::string::npos) {
      std::string line = buffer_.substr(0, newline);
      buffer_.erase(0, newline + 1);
      return line;
    }
    pollfd waiting{output_, POLLIN, 0};
    const int ready = ::poll(&waiting, 1, left_until(end));
    if (ready == 0) return failure(ErrorKind::Retry, fmt::format("process {} is silent", identity_.pid));
    if (ready < 0) continue;
    std::array<char, 65536> bytes;
    const auto count = ::read(output_, bytes.data(), bytes.size());
    if (count <= 0) return failure(ErrorKind::Reconnect, fmt::format("process {} has ended", identity_.pid));
    buffer_.append(bytes.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace sami::lab
