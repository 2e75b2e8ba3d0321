#include "runtime/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace sami {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() { if (number_ >= 0) close(number_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return number_; }

 private:
  int number_;
};

tl::unexpected<Error> failed(const char* what, const std::string& path) {
  const int error = errno;
  return failure(ErrorKind::Failed, fmt::format("cannot {} {}: {}", what, path, std::strerror(error)), error);
}

Result<std::string> read_open_file(const Descriptor& file, const std::string& path, std::size_t max_bytes) {
  std::string content;
  char buffer[16384];
  while (true) {
    const ssize_t count = read(file.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed("read", path);
    if (count == 0) return content;
    content.append(buffer, static_cast<std::size_t>(count));
    if (content.size() > max_bytes)
      return failure(ErrorKind::InvalidInput, fmt::format("{} is longer than {} octets", path, max_bytes));
  }
}

Result<std::string> read_checked(const std::string& path, std::size_t max_bytes, bool secret) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status = {};
  if (file.get() < 0 || fstat(file.get(), &status) != 0) return failed("open", path);
  if (!S_ISREG(status.st_mode)) return failure(ErrorKind::InvalidInput, path + " is not a regular file");
  if (secret && (status.st_mode & 0077) != 0) {
    return failure(ErrorKind::InvalidInput,
                   fmt::format("{} has mode {:04o}: expected 0600, it must be closed to group and others", path,
                               status.st_mode & 07777u));
  }
  if (secret && status.st_uid != geteuid() && status.st_uid != 0) {
    return failure(ErrorKind::InvalidInput, fmt::format("{} belongs to user {}: expected user {} or root", path,
                                                        status.st_uid, geteuid()));
  }
  return read_open_file(file, path, max_bytes);
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<void> write_all(const Descriptor& file, const std::string& path, std::string_view content) {
  while (!content.empty()) {
    const ssize_t count = write(file.get(), content.data(), content.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed("write", path);
    content.remove_prefix(static_cast<std::size_t>(count));
  }
  if (fsync(file.get()) != 0) return failed("write", path);
  return {};
}

// Writes a temporary file beside `path`, gives it the name, and makes both durable.
Result<void> replace(const std::string& path, std::string_view content, unsigned mode, bool must_be_new) {
  std::string temporary = path + ".XXXXXX";
  const Descriptor file(mkostemp(temporary.data(), O_CLOEXEC));
  if (file.get() < 0) return failed("create", path);
  Result<void> result = write_all(file, path, content);
  if (result && fchmod(file.get(), mode) != 0) result = failed("set the mode of", path);
  if (result && must_be_new && link(temporary.c_str(), path.c_str()) != 0) {
    result = errno == EEXIST ? Result<void>(failure(ErrorKind::InvalidInput, path + " exists already", EEXIST))
                             : Result<void>(failed("create", path));
  }
  if (result && !must_be_new && rename(temporary.c_str(), path.c_str()) != 0) result = failed("replace", path);
  if (must_be_new || !result) unlink(temporary.c_str());
  if (!result) return result;
  const Descriptor folder(open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || fsync(folder.get()) != 0) return failed("write", path);
  return {};
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t max_bytes) {
  return read_checked(path, max_bytes, false);
}
Result<std::string> read_private_file(const std::string& path, std::size_t max_bytes) {
  return read_checked(path, max_bytes, true);
}
Result<void> write_file(const std::string& path, std::string_view content, unsigned mode) {
  return replace(path, content, mode, false);
}
Result<void> create_file(const std::string& path, std::string_view content, unsigned mode) {
  return replace(path, content, mode, true);
}

Result<void> make_private_folder(const std::string& path) {
  for (std::size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    if (slash + 1 < path.size() && mkdir(path.substr(0, slash).c_str(), 0755) != 0 && errno != EEXIST)
      return failed("make", path);
  }
  if (mkdir(path.c_str(), 0700) == 0) return {};
  struct stat status = {};
  if (errno != EEXIST || stat(path.c_str(), &status) != 0) return failed("make", path);
  if (!S_ISDIR(status.st_mode)) return failure(ErrorKind::InvalidInput, path + " is not a folder");
  if ((status.st_mode & 0022) != 0 || (status.st_uid != geteuid() && status.st_uid != 0)) {
    return failure(ErrorKind::InvalidInput,
                   fmt::format("{} has mode {:04o} and belongs to user {}: expected that only user {} can write there",
                               path, status.st_mode & 07777u, status.st_uid, geteuid()));
  }
  return {};
}

}  // namespace sami
