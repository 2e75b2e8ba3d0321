#include "bench/support/flows.h"

#include <fmt/format.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "kernel/netlink/conntrack.h"
#include "lab/namespace.h"
#include "lab/topology.h"

namespace sami::bench {

using netlink::ConntrackEntry;
using netlink::ConntrackOperation;
using netlink::ConntrackRequest;

namespace {

constexpr const char* kQuiet =
    "table inet bench {\n chain input {\n type filter hook input priority 0\n meta l4proto tcp drop\n }\n}\n";
constexpr const char* kMaximum = "/proc/sys/net/netfilter/nf_conntrack_max";
constexpr std::size_t kBatch = 4096;
constexpr std::uint32_t kDays = 432000;  // seconds: what an established connection has
constexpr std::uint32_t kStatus = 0x0e;  // SEEN_REPLY, ASSURED, CONFIRMED
constexpr std::uint8_t kEstablished = 3;

// RFC 9293 section 3.1, over the pseudo header; length is even.
std::uint16_t checksum(std::uint32_t source, std::uint32_t destination, const void* segment, std::size_t length) {
  std::uint64_t sum = (source & 0xffff) + (source >> 16U) + (destination & 0xffff) + (destination >> 16U) +
                      htons(IPPROTO_TCP) + htons(static_cast<std::uint16_t>(length));
  std::vector<std::uint16_t> words(length / 2);
  std::memcpy(words.data(), segment, length);
  for (const auto word : words) sum += word;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16U);
  return static_cast<std::uint16_t>(~sum);
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

// The n-th established TCP connection from `client` to `server`; every n has a key of its own.
ConntrackEntry entry_of(const std::string& client, const std::string& server, std::size_t n) {
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
  entry.tcp = netlink::ConntrackTcp{kEstablished, 7, 7, 1, 1};
  return entry;
}

}  // namespace

Result<Room> Room::for_entries(std::size_t n) {
  std::size_t maximum = 0;
  std::ifstream(kMaximum) >> maximum;
  if (maximum >= n) return Room(0);
  std::ofstream out(kMaximum);
  out << n << std::flush;
  if (!out) return failure(ErrorKind::Failed, fmt::format("cannot raise {} to {}", kMaximum, n));
  return Room(maximum);
}

Room::~Room() {
  if (before_ != 0) std::ofstream(kMaximum) << before_;
}

Result<void> fill_table(const std::string& network_namespace, std::size_t n) {
  constexpr std::size_t kPerClient = 50'000;
  return apply(network_namespace, n, [&](std::size_t i) {
    const auto client = fmt::format("10.77.{}.{}", i / kPerClient / 250, 1 + i / kPerClient % 250);
    return ConntrackRequest{ConntrackOperation::Create, entry_of(client, "10.78.0.1", i % kPerClient)};
  });
}

Result<Conversation> Conversation::between(const End& client, const End& server) {
  int sockets[2] = {-1, -1};
  std::uint32_t addresses[2] = {0, 0};
  const End* ends[2] = {&client, &server};
  for (int i = 0; i < 2; ++i) {
    const auto quiet = lab::load_ruleset(ends[i]->network_namespace, kQuiet);
    if (!quiet) return tl::unexpected(quiet.error());
    if (inet_pton(AF_INET, ends[i]->address.c_str(), &addresses[i]) != 1)
      return failure(ErrorKind::InvalidInput, fmt::format("{} is no IPv4 address", ends[i]->address));
    const auto entered = lab::inside_namespace(
        ends[i]->network_namespace, [&] { sockets[i] = ::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW); });
    if (!entered) return tl::unexpected(entered.error());
    if (sockets[i] < 0) return failure(ErrorKind::Failed, "cannot make a raw socket");
  }
  return Conversation(sockets[0], sockets[1], addresses[0], addresses[1]);
}

Conversation::Conversation(int client, int server, std::uint32_t client_address, std::uint32_t server_address)
    : client_(client), server_(server), client_address_(client_address), server_address_(server_address) {}
Conversation::Conversation(Conversation&& other) noexcept
    : client_(std::exchange(other.client_, -1)),
      server_(std::exchange(other.server_, -1)),
      client_address_(other.client_address_),
      server_address_(other.server_address_),
      connections_(std::move(other.connections_)) {}
Conversation::~Conversation() {
  if (client_ >= 0) ::close(client_);
  if (server_ >= 0) ::close(server_);
}

Result<void> Conversation::open(std::size_t n) {
  connections_.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (auto sent = send(i, true, TH_SYN, 0); !sent) return sent;
    if (auto sent = send(i, false, TH_SYN | TH_ACK, 0); !sent) return sent;
    if (auto sent = send(i, true, TH_ACK, 0); !sent) return sent;
  }
  return {};
}

Result<void> Conversation::talk(std::size_t n) {
  constexpr std::size_t kOctets = 100;
  for (std::size_t i = 0; i < n; ++i) {
    if (auto sent = send(i, true, TH_ACK | TH_PUSH, kOctets); !sent) return sent;
    if (auto sent = send(i, false, TH_ACK, 0); !sent) return sent;
  }
  return {};
}

Result<void> Conversation::send(std::size_t connection, bool from_client, std::uint8_t flags, std::size_t octets) {
  constexpr std::size_t kPorts = 60000;
  const auto client_port = htons(static_cast<std::uint16_t>(1024 + connection % kPorts));
  const auto server_port = htons(static_cast<std::uint16_t>(1 + connection / kPorts));
  Connection& ends = connections_.at(connection);
  std::uint32_t& mine = from_client ? ends.client_sequence : ends.server_sequence;
  struct {
    iphdr ip;
    tcphdr tcp;
    std::array<char, 100> data;
  } packet{};
  const std::size_t length = sizeof packet.tcp + octets;
  packet.ip.version = 4;
  packet.ip.ihl = 5;
  packet.ip.ttl = 64;
  packet.ip.protocol = IPPROTO_TCP;
  packet.ip.saddr = from_client ? client_address_ : server_address_;
  packet.ip.daddr = from_client ? server_address_ : client_address_;
  packet.tcp.source = from_client ? client_port : server_port;
  packet.tcp.dest = from_client ? server_port : client_port;
  packet.tcp.th_seq = htonl(mine);
  packet.tcp.th_ack = (flags & TH_ACK) != 0 ? htonl(from_client ? ends.server_sequence : ends.client_sequence) : 0;
  packet.tcp.th_off = sizeof packet.tcp / 4;
  packet.tcp.th_flags = flags;
  packet.tcp.th_win = htons(60000);
  packet.tcp.th_sum = checksum(packet.ip.saddr, packet.ip.daddr, &packet.tcp, length);
  mine += static_cast<std::uint32_t>(octets) + ((flags & TH_SYN) != 0 ? 1 : 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = packet.ip.daddr;
  const auto sent = ::sendto(from_client ? client_ : server_, &packet, sizeof packet.ip + length, 0,
                             reinterpret_cast<const sockaddr*>(&to), sizeof to);
  if (sent < 0)
    return failure(ErrorKind::Failed, fmt::format("cannot send a segment: {}", std::strerror(errno)), errno);
  return {};
}

}  // namespace sami::bench
