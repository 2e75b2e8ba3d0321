// Kills a daemon (SIGKILL) exactly when its protocol machine is in a given state.
//
//   sami-kill-in-state PID STATE-FOLDER MACHINE STATE MOMENT
//
// MACHINE: som, source, destination, gate. STATE: its number in the machine's enumeration. MOMENT:
//   entered  the transaction that takes the machine into the state is durable; nothing of the step was said or done
//   acted    whatever the step had to say and do was begun; the daemon is about to write its next transaction
//
// The daemon is the one that ships. Its main thread alone is traced (ptrace(2)): it is where the machine runs and where
// the journal is written. Whenever a write to the journal has been made durable the thread stands still, the journal's
// files are copied and the copy is read.
//
// Says "watching" when the daemon is under watch and "killed" when it is dead, one line each; ends with status 0 then,
// and with 1 and a reason when that cannot be. Ends with its standard input; the daemon goes on then.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "tests/system/machine_states.h"

namespace {

namespace fs = std::filesystem;
using sami::lab::Machine;

struct Wanted {
  pid_t process = 0;
  std::string folder;
  Machine machine = Machine::Som;
  std::uint32_t state = 0;
  bool acted = false;
};

// A folder of our own for the copies.
class Copies {
 public:
  Copies() {
    std::string name = (fs::temp_directory_path() / "sami-kill-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~Copies() {
    std::error_code ignored;
    if (!folder_.empty()) fs::remove_all(folder_, ignored);
  }
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  // The states that the journal holds now; its writer must stand still.
  sami::Result<std::set<std::uint32_t>> states(const Wanted& wanted) const {
    std::error_code reason;
    for (const char* file : {"journal.db", "journal.db-wal"}) {
      const auto from = fs::path(wanted.folder) / file;
      const auto to = fs::path(folder_) / file;
      fs::remove(to, reason);
      if (fs::exists(from)) fs::copy_file(from, to, reason);
      if (reason) return sami::failure(sami::ErrorKind::Failed, from.string() + ": " + reason.message());
    }
    auto journal = sami::open_journal(folder_);
    if (!journal) return tl::unexpected(journal.error());
    auto image = (*journal)->load();
    if (!image) return tl::unexpected(image.error());
    return sami::lab::states_in(*image, wanted.machine);
  }

 private:
  std::string folder_;
};

class Watcher {
 public:
  explicit Watcher(Wanted wanted) : wanted_(std::move(wanted)) {}

  // Empty when the daemon was killed in the state; else why it was not.
  std::string run() {
    if (::ptrace(PTRACE_SEIZE, wanted_.process, nullptr, PTRACE_O_TRACESYSGOOD) != 0) return error("seize");
    if (::ptrace(PTRACE_INTERRUPT, wanted_.process, nullptr, nullptr) != 0) return error("interrupt");
    bool told = false;
    for (int status = 0;;) {
      if (::waitpid(wanted_.process, &status, __WALL) != wanted_.process) return error("wait");
      if (WIFEXITED(status) || WIFSIGNALED(status)) return "the daemon ended by itself";
      if (!told) std::cout << "watching" << std::endl;
      told = true;
      if (input_closed()) {
        ::ptrace(PTRACE_DETACH, wanted_.process, nullptr, nullptr);
        return "nobody waits any more";
      }
      long pass_on = 0;
      if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
        if (at_system_call()) return kill();
        if (!failure_.empty()) return failure_;
      } else if (status >> 16 == 0) {
        pass_on = WSTOPSIG(status);  // a signal of its own
      }
      if (::ptrace(PTRACE_SYSCALL, wanted_.process, nullptr, pass_on) != 0) return error("continue");
    }
  }

 private:
  // True: the moment is here.
  bool at_system_call() {
    __ptrace_syscall_info info{};
    if (::ptrace(PTRACE_GET_SYSCALL_INFO, wanted_.process, sizeof(info), &info) <= 0) {
      failure_ = error("look at a system call");
      return false;
    }
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
      call_ = info.entry.nr;
      descriptor_ = static_cast<int>(info.entry.args[0]);
      return in_state_ && (call_ == SYS_pwrite64 || call_ == SYS_write) && is_journal();
    }
    if (info.op != PTRACE_SYSCALL_INFO_EXIT || info.exit.is_error != 0) return false;
    if ((call_ != SYS_fdatasync && call_ != SYS_fsync) || !is_journal()) return false;
    const auto states = copies_.states(wanted_);
    if (!states) {
      failure_ = states.error().message;
      return false;
    }
    if (!states->contains(wanted_.state)) return false;
    in_state_ = wanted_.acted;
    return !wanted_.acted;
  }

  bool is_journal() const {
    std::error_code ignored;
    const auto file = fs::read_symlink(fmt::format("/proc/{}/fd/{}", wanted_.process, descriptor_), ignored);
    return file.filename() == "journal.db-wal";
  }

  std::string kill() const {
    if (::kill(wanted_.process, SIGKILL) != 0) return error("kill");
    int status = 0;
    while (::waitpid(wanted_.process, &status, __WALL) == wanted_.process) {
      if (WIFEXITED(status) || WIFSIGNALED(status)) return {};
    }
    return error("wait for its end");
  }

  static bool input_closed() {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    return ::poll(&input, 1, 0) > 0;
  }

  static std::string error(const std::string& what) {
    return fmt::format("cannot {}: {}", what, std::error_code(errno, std::generic_category()).message());
  }

  const Wanted wanted_;
  const Copies copies_;
  std::uint64_t call_ = 0;  // the system call under way, and the descriptor that it is about
  int descriptor_ = -1;
  bool in_state_ = false;
  std::string failure_;
};

}  // namespace

int main(int count, char** arguments) {
  const auto machine = count == 6 ? sami::lab::parse_machine(arguments[3]) : std::nullopt;
  if (!machine) {
    std::cerr << "expected: PID STATE-FOLDER som|source|destination|gate STATE entered|acted\n";
    return 2;
  }
  Watcher watcher({std::stoi(arguments[1]), arguments[2], *machine,
                   static_cast<std::uint32_t>(std::stoul(arguments[4])), std::string(arguments[5]) == "acted"});
  const std::string failure = watcher.run();
  std::cout << (failure.empty() ? "killed" : "failed: " + failure) << std::endl;
  return failure.empty() ? 0 : 1;
}
