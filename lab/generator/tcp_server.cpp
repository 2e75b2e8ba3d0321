#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <list>

#include "lab/generator/generator.h"

namespace sami::lab::generator {
namespace {

// The first byte of a connection says what is wanted: 'E' everything comes back, 'U' it is checked, 'D' is sent.
struct Connection {
  int handle = -1;
  char kind = 0;
  std::string peer;
  std::string backlog;         // to be echoed
  std::uint64_t position = 0;  // of the pattern, for U and D
  Microseconds progress = 0;
  Microseconds longest = 0;
};

class TcpServer : public Generator {
 public:
  explicit TcpServer(Options options) : options_(std::move(options)) { totals_.mode = options_.mode; }
  ~TcpServer() override {
    for (const auto& connection : connections_) ::close(connection.handle);
    ::close(listener_);
  }
  TcpServer(const TcpServer&) = delete;
  TcpServer& operator=(const TcpServer&) = delete;

  Result<void> start(Microseconds) override {
    auto opened = open_server(options_, SOCK_STREAM);
    if (!opened) return tl::unexpected(opened.error());
    listener_ = *opened;
    return {};
  }

  void collect(std::vector<pollfd>& waiting) const override {
    waiting.push_back({listener_, POLLIN, 0});
    for (const auto& one : connections_) {
      const bool has_output = one.kind == 'D' || !one.backlog.empty();
      waiting.push_back({one.handle, static_cast<short>(has_output ? POLLIN | POLLOUT : POLLIN), 0});
    }
  }

  void step(Microseconds now, const pollfd* ready, std::size_t count) override {
    auto one = connections_.begin();
    for (std::size_t i = 1; i < count; ++i) {
      const bool alive = ready[i].revents == 0 || serve(*one, ready[i].revents, now);
      one = alive ? std::next(one) : connections_.erase(one);
    }
    if (ready[0].revents != 0) accept_all(now);
  }

  Microseconds next_due() const override { return kNever; }

  Report report(Microseconds now) const override {
    Report report = totals_;
    report.established = static_cast<int>(connections_.size());
    for (const auto& one : connections_) {
      const bool bulk = one.kind == 'U' || one.kind == 'D';
      const auto waiting = bulk ? now - one.progress : 0;
      report.waiting = std::max(report.waiting, waiting);
      report.longest_stall = std::max({report.longest_stall, one.longest, waiting});
      report.peers.push_back(one.peer);
    }
    return report;
  }

 private:
  void accept_all(Microseconds now) {
    sockaddr_in peer{};
    socklen_t size = sizeof peer;
    while (true) {
      const int handle = ::accept4(listener_, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (handle < 0) return;
      const int yes = 1;
      ::setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
      std::array<char, INET_ADDRSTRLEN> text{};
      ::inet_ntop(AF_INET, &peer.sin_addr, text.data(), text.size());
      Connection fresh;
      fresh.handle = handle;
      fresh.peer = fmt::format("{}:{}", text.data(), ntohs(peer.sin_port));
      fresh.progress = now;
      connections_.push_back(std::move(fresh));
      ++totals_.connections;
    }
  }

  bool end(Connection& one, int reason) {
    if (reason != 0) {
      ++totals_.broken;
      totals_.error(fmt::format("{}: {}", one.peer, std::strerror(reason)));
    }
    totals_.longest_stall = std::max(totals_.longest_stall, one.longest);
    ::close(one.handle);
    return false;
  }

  void note_progress(Connection& one, Microseconds now) {
    one.longest = std::max(one.longest, now - one.progress);
    one.progress = now;
  }

  // False: the connection has ended and its socket is closed.
  bool serve(Connection& one, short events, Microseconds now) {
    if ((events & (POLLIN | POLLERR | POLLHUP)) != 0) {
      std::array<char, 65536> bytes;
      const auto count = ::recv(one.handle, bytes.data(), bytes.size(), 0);
      if (count == 0) return end(one, 0);
      if (count < 0) return errno == EAGAIN || end(one, errno);
      take(one, std::string_view(bytes.data(), static_cast<std::size_t>(count)), now);
    }
    if (one.kind == 'D') return send_pattern(one, now);
    if (one.backlog.empty()) return true;
    const auto sent = ::send(one.handle, one.backlog.data(), one.backlog.size(), MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || end(one, errno);
    one.backlog.erase(0, static_cast<std::size_t>(sent));
    return true;
  }

  void take(Connection& one, std::string_view bytes, Microseconds now) {
    if (one.kind == 0) {
      one.kind = bytes.front();
      one.progress = now;
      bytes.remove_prefix(1);
    }
    if (one.kind == 'E') one.backlog.append(bytes);
    if (one.kind != 'U' || bytes.empty()) return;
    for (const char byte : bytes) totals_.mismatches += byte != pattern(one.position++);
    totals_.bytes += bytes.size();
    note_progress(one, now);
  }

  bool send_pattern(Connection& one, Microseconds now) {
    std::array<char, 65536> bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = pattern(one.position + i);
    const auto sent = ::send(one.handle, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || end(one, errno);
    one.position += static_cast<std::uint64_t>(sent);
    note_progress(one, now);
    return true;
  }

  Options options_;
  int listener_ = -1;
  std::list<Connection> connections_;
  Report totals_;
};

}  // namespace

std::unique_ptr<Generator> make_tcp_server(const Options& options) { return std::make_unique<TcpServer>(options); }

}  // namespace sami::lab::generator
