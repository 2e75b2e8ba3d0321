#include "kernel/windows/kernel_windows.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernel/windows/filter_table.h"
#include "kernel/windows/packet_tracker.h"
#include "kernel/windows/segments.h"
#include "kernel/windows/window_reader.h"

namespace sami::windows {

namespace {

constexpr const char* kLiberal = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";

class File {
 public:
  explicit File(int file = -1) : file_(file) {}
  ~File() {
    if (file_ >= 0) ::close(file_);
  }
  File(File&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  File& operator=(File&&) = delete;
  int get() const { return file_; }

 private:
  int file_;
};

// A raw socket that sends packets with their IP header as they are, from any address.
class RawSocket {
 public:
  static Result<RawSocket> open(int family) {
    RawSocket raw(family, ::socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    if (raw.file_.get() < 0) return unsupported("raw socket (CAP_NET_RAW)", errno);
    const int on = 1, none = 0;
    const int level = family == AF_INET ? static_cast<int>(IPPROTO_IP) : static_cast<int>(IPPROTO_IPV6);
    const int included = family == AF_INET ? IP_HDRINCL : IPV6_HDRINCL;
    if (::setsockopt(raw.file_.get(), level, included, &on, sizeof on) != 0) {
      return unsupported("IP_HDRINCL", errno);
    }
    ::setsockopt(raw.file_.get(), SOL_SOCKET, SO_RCVBUF, &none, sizeof none);  // it only sends
    if (auto marked = raw.mark(0); !marked) return tl::unexpected(marked.error());
    return raw;
  }

  Result<void> mark(std::uint16_t zone) {
    if (zone_ == zone) return {};
    const std::uint32_t mark = kMark | zone;
    if (::setsockopt(file_.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) return unsupported("SO_MARK", errno);
    zone_ = zone;
    return {};
  }

  // To the loopback device, whatever the header says: there need not be a route. EPERM: dropped by our rule, as meant.
  Result<void> send(const std::vector<std::uint8_t>& packet) {
    sockaddr_in to4{AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {}};
    sockaddr_in6 to6{AF_INET6, 0, 0, IN6ADDR_LOOPBACK_INIT, 0};
    const auto* to = family_ == AF_INET ? reinterpret_cast<const sockaddr*>(&to4) : reinterpret_cast<sockaddr*>(&to6);
    const socklen_t size = family_ == AF_INET ? sizeof to4 : sizeof to6;
    while (::sendto(file_.get(), packet.data(), packet.size(), 0, to, size) < 0) {
      if (errno == EPERM) return {};
      if (errno != EINTR) {
        return failure(ErrorKind::Failed, fmt::format("TCP windows: synthetic segment: {}", std::strerror(errno)),
                       errno);
      }
    }
    return failure(ErrorKind::Failed,
                   "TCP windows: a synthetic segment was not dropped: table inet sami does not work");
  }

 private:
  RawSocket(int family, int file) : family_(family), file_(file) {}
  int family_;
  File file_;
  std::optional<std::uint16_t> zone_;
};

struct Parts {
  std::unique_ptr<WindowReader> reader;
  RawSocket four, six;
};

class Windows : public TcpWindows {
 public:
  explicit Windows(Result<Parts> parts) : parts_(std::move(parts)) {}

  Result<void> available() const override {
    if (!parts_) return tl::unexpected(parts_.error());
    return {};
  }
  Result<std::vector<std::optional<TcpWindow>>> read(const std::vector<netlink::ConntrackKey>& keys) override {
    if (!parts_) return tl::unexpected(parts_.error());
    return parts_->reader->read(keys);
  }
  Result<void> write(const std::vector<WindowWrite>& writes) override {
    if (!parts_) return tl::unexpected(parts_.error());
    for (const auto& write : writes) {
      RawSocket& socket = write.original.source.family == AF_INET ? parts_->four : parts_->six;
      if (auto marked = socket.mark(write.zone); !marked) return marked;
      for (const auto& segment : segments_of(write)) {
        // Each end's packets as conntrack sees them before any translation.
        const auto& tuple = segment.from_reply ? write.reply : write.original;
        if (auto sent = socket.send(packet_of(segment, tuple)); !sent) return sent;
      }
    }
    return {};
  }

 private:
  Result<Parts> parts_;
};

class KernelBarrier : public Barrier {
 public:
  explicit KernelBarrier(Result<std::unique_ptr<FilterTable>> table) : table_(std::move(table)) {}
  Result<void> raise(const std::vector<Place>& places, std::chrono::milliseconds timeout) override {
    if (!table_) return tl::unexpected(table_.error());
    return (*table_)->raise(places, timeout);
  }
  Result<void> lower(const std::vector<Place>& places) override {
    if (!table_) return tl::unexpected(table_.error());
    return (*table_)->lower(places);
  }

 private:
  Result<std::unique_ptr<FilterTable>> table_;
};

Result<void> check_strict() {
  const File file(::open(kLiberal, O_RDONLY | O_CLOEXEC));
  char value = '0';
  if (file.get() >= 0 && ::read(file.get(), &value, 1) == 1 && value != '0') {
    return failure(ErrorKind::Unsupported, "TCP windows: this host does not keep them (nf_conntrack_tcp_be_liberal=1)");
  }
  return {};
}

Result<Parts> open_parts(const Result<std::unique_ptr<FilterTable>>& table) {
  if (auto strict = check_strict(); !strict) return tl::unexpected(strict.error());
  auto reader = WindowReader::load();
  if (!reader) return tl::unexpected(reader.error());
  if (!table) return tl::unexpected(table.error());
  auto four = RawSocket::open(AF_INET);
  if (!four) return tl::unexpected(four.error());
  auto six = RawSocket::open(AF_INET6);
  if (!six) return tl::unexpected(six.error());
  // To itself: shows that the loopback device is up and that the table drops it.
  const auto itself = netlink::parse_address("127.0.0.1").value();
  const netlink::ConntrackTuple nobody{itself, itself, IPPROTO_TCP, 9, 9};
  if (auto sent = four->send(packet_of({}, nobody)); !sent) {
    return failure(ErrorKind::Unsupported, sent.error().message, sent.error().system_error);
  }
  return Parts{std::move(*reader), std::move(*four), std::move(*six)};
}

}  // namespace

KernelWindows open_kernel_windows() {
  auto table = FilterTable::create();
  auto parts = open_parts(table);
  return {std::make_unique<Windows>(std::move(parts)), std::make_unique<KernelBarrier>(std::move(table)),
          open_packet_tracker()};
}

}  // namespace sami::windows
