#include "bench/support/flows.h"

#include <fmt/format.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <vector>

#include "lab/namespace.h"

namespace sami::bench {

using netlink::ConntrackEntry;
using netlink::ConntrackOperation;
using netlink::ConntrackRequest;

namespace {

constexpr const char* kMaximum = "/proc/sys/net/netfilter/nf_conntrack_max";
constexpr std::size_t kBatch = 4096;
constexpr std::uint32_t kDays = 432000;  // seconds: what an established connection has
constexpr std::uint32_t kStatus = 0x0e;  // SEEN_REPLY, ASSURED, CONFIRMED
constexpr std::uint8_t kEstablished = 3;
constexpr std::uint8_t kCloseWait = 5;

Result<void> make_room(std::size_t entries) {
  std::size_t maximum = 0;
  std::ifstream(kMaximum) >> maximum;
  if (maximum >= entries) return {};
  std::ofstream out(kMaximum);
  out << entries << std::flush;
  if (!out) return failure(ErrorKind::Failed, fmt::format("cannot raise {} to {}", kMaximum, entries));
  return {};
}

Result<void> apply(const std::string& network_namespace, std::size_t n,
                   const std::function<ConntrackRequest(std::size_t)>& request) {
  Result<void> result;
  auto entered = lab::inside_namespace(network_namespace, [&] {
    auto conntrack = netlink::open_kernel_conntrack();
    if (!conntrack) {
      result = tl::unexpected(conntrack.error());
      return;
    }
    for (std::size_t begin = 0; begin < n && result; begin += kBatch) {
      std::vector<ConntrackRequest> requests;
      for (std::size_t i = begin; i < std::min(n, begin + kBatch); ++i) requests.push_back(request(i));
      const auto done = (*conntrack)->table().apply(requests);
      if (!done) result = tl::unexpected(done.error());
      if (!done) return;
      const auto failed = std::find_if(done->begin(), done->end(), [](int code) { return code != 0; });
      if (failed != done->end())
        result = failure(ErrorKind::Failed, fmt::format("the kernel refuses an entry: {}", std::strerror(*failed)));
    }
  });
  if (!entered) return entered;
  return result;
}

}  // namespace

ConntrackEntry connection(const std::string& client, const std::string& server, std::size_t n) {
  ConntrackEntry entry;
  constexpr std::size_t kPorts = 60000;
  entry.original.source = *netlink::parse_address(client);
  entry.original.destination = *netlink::parse_address(server);
  entry.original.protocol = IPPROTO_TCP;
  entry.original.source_port = static_cast<std::uint16_t>(1024 + n % kPorts);
  entry.original.destination_port = static_cast<std::uint16_t>(1 + n / kPorts);
  entry.reply = netlink::mirror(entry.original);
  entry.status = kStatus;
  entry.timeout = kDays;
  entry.tcp = netlink::ConntrackTcp{kEstablished, 7, 7, IP_CT_TCP_FLAG_WINDOW_SCALE, IP_CT_TCP_FLAG_WINDOW_SCALE};
  return entry;
}

Result<void> fill_table(const std::string& network_namespace, std::size_t n) {
  if (auto room = make_room(n + n / 2 + 200'000); !room) return room;
  constexpr std::size_t kPerClient = 50'000;
  return apply(network_namespace, n, [&](std::size_t i) {
    const auto client = fmt::format("10.77.{}.{}", i / kPerClient / 250, 1 + i / kPerClient % 250);
    return ConntrackRequest{ConntrackOperation::Create, connection(client, "10.78.0.1", i % kPerClient)};
  });
}

Result<void> open_connections(const std::string& network_namespace, const std::string& client, std::size_t n) {
  return apply(network_namespace, n, [&](std::size_t i) {
    return ConntrackRequest{ConntrackOperation::Create, connection(client, "10.9.3.30", i)};
  });
}

Result<void> change_connections(const std::string& network_namespace, const std::string& client, std::size_t n,
                                bool closing) {
  return apply(network_namespace, n, [&](std::size_t i) {
    auto entry = connection(client, "10.9.3.30", i);
    entry.tcp->state = closing ? kCloseWait : kEstablished;
    return ConntrackRequest{ConntrackOperation::Update, entry};
  });
}

}  // namespace sami::bench
