#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <set>

#include "lab/generator/generator.h"

namespace sami::lab::generator {
namespace {

constexpr Microseconds kLostAfter = 1'000'000;

struct Datagram {
  std::uint32_t flow = 0;
  std::uint32_t number = 0;
};

class UdpServer : public Generator {
 public:
  explicit UdpServer(Options options) : options_(std::move(options)) {}
  ~UdpServer() override { ::close(handle_); }
  UdpServer(const UdpServer&) = delete;
  UdpServer& operator=(const UdpServer&) = delete;

  Result<void> start(Microseconds) override {
    auto opened = open_server(options_, SOCK_DGRAM);
    if (!opened) return tl::unexpected(opened.error());
    handle_ = *opened;
    return {};
  }
  void collect(std::vector<pollfd>& waiting) const override { waiting.push_back({handle_, POLLIN, 0}); }
  Microseconds next_due() const override { return kNever; }

  void step(Microseconds, const pollfd* ready, std::size_t) override {
    if (ready->revents == 0) return;
    std::array<char, 65536> bytes;
    sockaddr_in peer{};
    socklen_t size = sizeof peer;
    while (true) {
      const auto count = ::recvfrom(handle_, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&peer), &size);
      if (count < 0) return;
      if (count < static_cast<ssize_t>(sizeof(Datagram))) continue;
      Datagram datagram;
      std::memcpy(&datagram, bytes.data(), sizeof datagram);
      std::array<char, INET_ADDRSTRLEN> text{};
      ::inet_ntop(AF_INET, &peer.sin_addr, text.data(), text.size());
      flows_[datagram.flow].insert(fmt::format("{}:{}", text.data(), ntohs(peer.sin_port)));
      bytes_ += static_cast<std::uint64_t>(count);
      ::sendto(handle_, bytes.data(), static_cast<std::size_t>(count), 0, reinterpret_cast<sockaddr*>(&peer), size);
    }
  }

  Report report(Microseconds) const override {
    Report report;
    report.mode = options_.mode;
    report.connections = report.established = static_cast<int>(flows_.size());
    report.bytes = bytes_;
    for (const auto& [flow, peers] : flows_) {
      report.changed_peers += peers.size() > 1;
      report.peers.insert(report.peers.end(), peers.begin(), peers.end());
    }
    return report;
  }

 private:
  Options options_;
  int handle_ = -1;
  std::uint64_t bytes_ = 0;
  std::map<std::uint32_t, std::set<std::string>> flows_;
};

struct Flow {
  int handle = -1;
  Microseconds due = 0;
  Microseconds answered = 0;  // when an answer came last
  Microseconds longest = 0;
  std::uint32_t next = 0;
  std::map<std::uint32_t, Microseconds> outstanding;
  std::uint64_t lost = 0;
  int exchanges = 0;
};

class UdpClient : public Generator {
 public:
  explicit UdpClient(Options options) : options_(std::move(options)) {
    totals_.mode = options_.mode;
    totals_.connections = options_.connections;
  }
  ~UdpClient() override {
    for (const auto& flow : flows_) ::close(flow.handle);
  }
  UdpClient(const UdpClient&) = delete;
  UdpClient& operator=(const UdpClient&) = delete;

  Result<void> start(Microseconds now) override {
    for (int i = 0; i < options_.connections; ++i) {
      auto opened = open_client(options_, SOCK_DGRAM);
      if (!opened) return tl::unexpected(opened.error());
      Flow flow;
      flow.handle = *opened;
      flow.due = now + Microseconds{options_.interval_ms} * 1000 * i / options_.connections;
      flows_.push_back(std::move(flow));
    }
    return {};
  }
  void collect(std::vector<pollfd>& waiting) const override {
    for (const auto& flow : flows_) waiting.push_back({flow.handle, POLLIN, 0});
  }

  void step(Microseconds now, const pollfd* ready, std::size_t count) override {
    for (std::size_t i = 0; i < count; ++i) {
      auto& flow = flows_[i];
      if (ready[i].revents != 0) receive(flow, now);
      while (!flow.outstanding.empty() && now - flow.outstanding.begin()->second > kLostAfter) {
        flow.outstanding.erase(flow.outstanding.begin());
        ++flow.lost;
      }
      if (flow.due <= now) send_one(flow, static_cast<std::uint32_t>(i), now);
    }
  }

  Microseconds next_due() const override {
    Microseconds due = kNever;
    for (const auto& flow : flows_) due = std::min(due, flow.due);
    return due;
  }

  Report report(Microseconds now) const override {
    Report report = totals_;
    report.least_exchanges = flows_.empty() ? 0 : INT32_MAX;
    for (const auto& flow : flows_) {
      report.established += flow.answered != 0;
      report.sent += flow.next;
      report.lost += flow.lost;
      report.least_exchanges = std::min(report.least_exchanges, flow.exchanges);
      const auto waiting = flow.answered != 0 ? now - flow.answered : 0;
      report.waiting = std::max(report.waiting, waiting);
      report.longest_stall = std::max({report.longest_stall, flow.longest, waiting});
    }
    return report;
  }

 private:
  void send_one(Flow& flow, std::uint32_t index, Microseconds now) {
    std::string bytes(std::max(sizeof(Datagram), static_cast<std::size_t>(options_.bytes)), 'u');
    const Datagram datagram{index, flow.next};
    std::memcpy(bytes.data(), &datagram, sizeof datagram);
    if (::send(flow.handle, bytes.data(), bytes.size(), 0) < 0 && errno != EAGAIN) totals_.error(std::strerror(errno));
    flow.outstanding.emplace(flow.next++, now);
    flow.due = now + Microseconds{std::max(1, options_.interval_ms)} * 1000;
  }

  void receive(Flow& flow, Microseconds now) {
    std::array<char, 65536> bytes;
    while (true) {
      const auto count = ::recv(flow.handle, bytes.data(), bytes.size(), 0);
      if (count < 0 && errno != EAGAIN) {
        totals_.error(std::strerror(errno));
        continue;
      }
      if (count < static_cast<ssize_t>(sizeof(Datagram))) return;
      Datagram datagram;
      std::memcpy(&datagram, bytes.data(), sizeof datagram);
      flow.outstanding.erase(datagram.number);
      if (flow.answered != 0) flow.longest = std::max(flow.longest, now - flow.answered);
      flow.answered = now;
      ++flow.exchanges;
      ++totals_.exchanges;
      totals_.bytes += static_cast<std::uint64_t>(count);
    }
  }

  Options options_;
  std::vector<Flow> flows_;
  Report totals_;
};

}  // namespace

std::unique_ptr<Generator> make_udp_server(const Options& options) { return std::make_unique<UdpServer>(options); }
std::unique_ptr<Generator> make_udp_client(const Options& options) { return std::make_unique<UdpClient>(options); }

}  // namespace sami::lab::generator
