#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "lab/generator/generator.h"

namespace sami::lab::generator {
namespace {

struct Connection {
  int handle = -1;
  bool open = false;
  Microseconds due = 0;            // when the next message goes out
  Microseconds waiting_since = 0;  // for the answer, or for progress; 0: for nothing
  Microseconds longest = 0;
  std::size_t unsent = 0;  // of the present message
  std::size_t unanswered = 0;
  std::uint64_t position = 0;  // of the pattern, outgoing
  std::uint64_t expected = 0;  // of the pattern, incoming
  int exchanges = 0;
};

class TcpClient : public Generator {
 public:
  explicit TcpClient(Options options) : options_(std::move(options)) {
    totals_.mode = options_.mode;
    totals_.connections = options_.connections;
    kind_ = options_.mode == "upload" ? 'U' : options_.mode == "download" ? 'D' : 'E';
  }
  ~TcpClient() override {
    for (const auto& one : connections_) {
      if (one.handle >= 0) ::close(one.handle);
    }
  }
  TcpClient(const TcpClient&) = delete;
  TcpClient& operator=(const TcpClient&) = delete;

  Result<void> start(Microseconds now) override {
    for (int i = 0; i < options_.connections; ++i) {
      auto opened = open_client(options_, SOCK_STREAM);
      if (!opened) return tl::unexpected(opened.error());
      Connection one;
      one.handle = *opened;
      one.waiting_since = now;
      // Spread over the interval, so that at any moment some connection has just spoken.
      one.due = now + Microseconds{options_.interval_ms} * 1000 * i / options_.connections;
      connections_.push_back(one);
    }
    return {};
  }

  void collect(std::vector<pollfd>& waiting) const override {
    for (const auto& one : connections_) {
      const bool writes = !one.open || one.unsent > 0;
      waiting.push_back({one.handle, static_cast<short>(writes ? POLLIN | POLLOUT : POLLIN), 0});
    }
  }

  void step(Microseconds now, const pollfd* ready, std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) {
      auto& one = connections_[i];
      if (one.handle < 0) continue;
      if (ready[i].revents != 0) handle(one, ready[i].revents, now);
      if (one.handle >= 0 && one.open && kind_ != 'D' && one.due <= now && idle(one)) begin_message(one, now);
    }
  }

  Microseconds next_due() const override {
    Microseconds due = kNever;
    for (const auto& one : connections_) {
      if (one.handle >= 0 && one.open && kind_ != 'D' && idle(one)) due = std::min(due, one.due);
    }
    return due;
  }

  Report report(Microseconds now) const override {
    Report report = totals_;
    report.least_exchanges = connections_.empty() ? 0 : INT32_MAX;
    for (const auto& one : connections_) {
      report.established += one.handle >= 0 && one.open;
      report.least_exchanges = std::min(report.least_exchanges, one.exchanges);
      const auto waiting = one.handle >= 0 && one.waiting_since != 0 ? now - one.waiting_since : 0;
      report.waiting = std::max(report.waiting, waiting);
      report.longest_stall = std::max({report.longest_stall, one.longest, waiting});
    }
    return report;
  }

 private:
  static bool idle(const Connection& one) { return one.unsent == 0 && one.unanswered == 0; }

  void begin_message(Connection& one, Microseconds now) {
    one.unsent = static_cast<std::size_t>(options_.bytes);
    one.unanswered = kind_ == 'E' ? one.unsent : 0;
    one.waiting_since = now;
    one.due = now + Microseconds{options_.interval_ms} * 1000;
    write_some(one, now);
  }

  void end(Connection& one, const char* reason) {
    ++totals_.broken;
    totals_.error(reason);
    ::close(one.handle);
    one.handle = -1;
  }

  void progress(Connection& one, Microseconds now, bool waits_on) {
    if (one.waiting_since != 0) one.longest = std::max(one.longest, now - one.waiting_since);
    one.waiting_since = waits_on ? now : 0;
  }

  void handle(Connection& one, short events, Microseconds now) {
    if (!one.open) {
      int reason = 0;
      socklen_t size = sizeof reason;
      ::getsockopt(one.handle, SOL_SOCKET, SO_ERROR, &reason, &size);
      if (reason != 0) return end(one, std::strerror(reason));
      if ((events & POLLOUT) == 0) return;
      one.open = ::send(one.handle, &kind_, 1, MSG_NOSIGNAL) == 1;
      if (!one.open) return end(one, std::strerror(errno));
      one.waiting_since = kind_ == 'D' ? now : 0;  // how long connecting took is no stall of a connection
      return;
    }
    if ((events & (POLLIN | POLLERR | POLLHUP)) != 0) read_some(one, now);
    if (one.handle >= 0 && one.unsent > 0 && (events & POLLOUT) != 0) write_some(one, now);
  }

  void write_some(Connection& one, Microseconds now) {
    std::array<char, 65536> bytes;
    const auto size = std::min(bytes.size(), one.unsent);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = pattern(one.position + i);
    const auto sent = ::send(one.handle, bytes.data(), size, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno != EAGAIN) end(one, std::strerror(errno));
      return;
    }
    one.position += static_cast<std::uint64_t>(sent);
    one.unsent -= static_cast<std::size_t>(sent);
    if (kind_ != 'U') return;
    totals_.bytes += static_cast<std::uint64_t>(sent);
    ++one.exchanges;
    progress(one, now, one.unsent > 0);
  }

  void read_some(Connection& one, Microseconds now) {
    std::array<char, 65536> bytes;
    const auto count = ::recv(one.handle, bytes.data(), bytes.size(), 0);
    if (count == 0) return end(one, "closed by the peer");
    if (count < 0) {
      if (errno != EAGAIN) end(one, std::strerror(errno));
      return;
    }
    const auto size = static_cast<std::size_t>(count);
    for (std::size_t i = 0; i < size; ++i) totals_.mismatches += bytes[i] != pattern(one.expected++);
    totals_.bytes += size;
    if (kind_ == 'D') {
      ++one.exchanges;
      return progress(one, now, true);
    }
    one.unanswered -= std::min(one.unanswered, size);
    if (one.unanswered > 0) return;
    ++one.exchanges;
    ++totals_.exchanges;
    progress(one, now, false);
  }

  Options options_;
  char kind_ = 'E';
  std::vector<Connection> connections_;
  Report totals_;
};

}  // namespace

std::unique_ptr<Generator> make_tcp_client(const Options& options) { return std::make_unique<TcpClient>(options); }

}  // namespace sami::lab::generator
