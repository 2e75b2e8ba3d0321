#include "lab/namespace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "lab/process.h"

namespace sami::lab {
namespace {

constexpr const char* kFolder = "/run/netns";

std::string path_of(const std::string& name) { return fmt::format("{}/{}", kFolder, name); }

std::uint64_t identity_of_path(const std::string& path) {
  struct stat information {};
  return ::stat(path.c_str(), &information) == 0 ? information.st_ino : 0;
}

}  // namespace

Result<void> create_namespace(const std::string& name) {
  auto made = run({"ip", "netns", "add", name});
  if (!made) return tl::unexpected(made.error());
  return {};
}

Result<void> remove_namespace(const std::string& name) {
  if (!namespace_exists(name)) return {};
  auto removed = run({"ip", "netns", "delete", name});
  if (!removed) return tl::unexpected(removed.error());
  return {};
}

bool namespace_exists(const std::string& name) { return std::filesystem::exists(path_of(name)); }

std::vector<std::string> list_namespaces() {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder, ignored)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::uint64_t namespace_identity(const std::string& name) { return identity_of_path(path_of(name)); }

std::uint64_t namespace_identity_of_process(int pid) { return identity_of_path(fmt::format("/proc/{}/ns/net", pid)); }

Result<void> inside_namespace(const std::string& name, const std::function<void()>& action) {
  if (name.empty()) {
    action();
    return {};
  }
  std::optional<Error> error;
  std::thread worker([&] {
    const int handle = ::open(path_of(name).c_str(), O_RDONLY | O_CLOEXEC);
    const bool entered = handle >= 0 && ::setns(handle, CLONE_NEWNET) == 0;
    const int reason = errno;
    if (handle >= 0) ::close(handle);
    if (!entered) {
      const auto text = fmt::format("cannot enter network namespace {}: {}", name, std::strerror(reason));
      error = Error{ErrorKind::Failed, text, reason};
      return;
    }
    action();
  });
  worker.join();
  if (error) return tl::unexpected(*error);
  return {};
}

Result<void> set_sysctl(const std::string& name, const std::string& key, const std::string& value) {
  std::string path = "/proc/sys/" + key;
  std::replace(path.begin() + 10, path.end(), '.', '/');
  std::optional<Error> error;
  auto entered = inside_namespace(name, [&] {
    const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (file < 0) {
      const auto text = fmt::format("{}: no setting {}: {}", name, key, std::strerror(errno));
      error = Error{ErrorKind::Unsupported, text, errno};
      return;
    }
    if (::write(file, value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
      error = Error{ErrorKind::Failed, fmt::format("{}: {}={}: {}", name, key, value, std::strerror(errno)), errno};
    }
    ::close(file);
  });
  if (!entered) return entered;
  if (error) return tl::unexpected(*error);
  return {};
}

}  // namespace sami::lab
