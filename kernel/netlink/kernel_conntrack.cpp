#include "kernel/netlink/kernel_conntrack.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sami::netlink {

namespace {

constexpr int kTableBufferBytes = 8 * 1024 * 1024;
constexpr const char* kEventsSysctl = "/proc/sys/net/netfilter/nf_conntrack_events";

class KernelConntrack : public Conntrack {
 public:
  KernelConntrack(KernelTable table, std::vector<std::uint64_t> silent, int event_buffer_bytes)
      : table_(std::move(table)), silent_(std::move(silent)), event_buffer_bytes_(event_buffer_bytes) {}

  ConntrackTable& table() override { return table_; }
  Result<std::unique_ptr<ConntrackEvents>> subscribe() override { return KernelEvents::subscribe(event_buffer_bytes_); }
  bool is_silent(const ConntrackKey& key) const override {
    return std::binary_search(silent_.begin(), silent_.end(), hash_value(key));
  }
  bool has_silent() const override { return !silent_.empty(); }

 private:
  KernelTable table_;
  std::vector<std::uint64_t> silent_;  // hashes, sorted
  int event_buffer_bytes_;
};

// True when events were enabled for every entry already.
Result<bool> enable_events() {
  const auto problem = [](const char* what) {
    const int error = errno;
    const bool unsupported = error == ENOENT || error == EPERM || error == EACCES;
    return failure(unsupported ? ErrorKind::Unsupported : ErrorKind::Failed,
                   fmt::format("{}: {}: {}", kEventsSysctl, what, std::strerror(error)), error);
  };
  const int reader = ::open(kEventsSysctl, O_RDONLY | O_CLOEXEC);
  if (reader < 0) return problem("open");
  char value = 0;
  const ssize_t size = ::read(reader, &value, 1);
  ::close(reader);
  if (size == 1 && value == '1') return true;
  const int writer = ::open(kEventsSysctl, O_WRONLY | O_CLOEXEC);
  if (writer < 0) return problem("open for writing");
  const ssize_t written = ::write(writer, "1", 1);
  if (written != 1) {
    auto result = problem("write 1");
    ::close(writer);
    return result;
  }
  ::close(writer);
  return false;
}

}  // namespace

Result<std::unique_ptr<Conntrack>> open_kernel_conntrack(const KernelConntrackOptions& options) {
  auto socket = Socket::open(kTableBufferBytes);
  if (!socket) return tl::unexpected(socket.error());
  KernelTable table(std::move(*socket));
  if (auto checked = table.check_filter(); !checked) return tl::unexpected(checked.error());
  const auto enabled = enable_events();
  if (!enabled) return tl::unexpected(enabled.error());
  std::vector<std::uint64_t> silent;
  if (!*enabled) {
    for (const int family : {AF_INET, AF_INET6}) {
      ConntrackFilter filter;
      filter.family = static_cast<std::uint8_t>(family);
      auto dumped =
          table.dump(filter, [&](const ConntrackEntry& entry) { silent.push_back(hash_value(key_of(entry))); });
      if (!dumped) return tl::unexpected(dumped.error());
    }
    std::sort(silent.begin(), silent.end());
  }
  return std::make_unique<KernelConntrack>(std::move(table), std::move(silent), options.event_buffer_bytes);
}

}  // namespace sami::netlink
