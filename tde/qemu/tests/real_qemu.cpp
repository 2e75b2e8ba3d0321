#include "tde/qemu/tests/real_qemu.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <vector>

namespace sami::tde::qmp {

namespace {
constexpr const char* kProgram = "qemu-system-x86_64";
}

bool qemu_installed() {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/" + kProgram).c_str(), X_OK) == 0) return true;
  }
  return false;
}

RealQemu::RealQemu(const std::string& path, bool incoming) {
  std::filesystem::remove(path);
  std::vector<std::string> words{kProgram,
                                 "-nodefaults",
                                 "-no-user-config",
                                 "-display",
                                 "none",
                                 "-machine",
                                 "pc",
                                 "-accel",
                                 "tcg",
                                 "-m",
                                 "32",
                                 "-qmp",
                                 "unix:" + path + ",server=on,wait=off"};
  if (incoming) words.insert(words.end(), {"-incoming", "defer"});
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  if (::posix_spawnp(&process_, kProgram, nullptr, nullptr, arguments.data(), environ) != 0) {
    throw std::runtime_error("cannot start QEMU");
  }
}

RealQemu::~RealQemu() {
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
}

}  // namespace sami::tde::qmp
