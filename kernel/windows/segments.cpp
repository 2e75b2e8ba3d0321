#include "kernel/windows/segments.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cstring>

namespace sami::windows {

namespace {

constexpr std::uint8_t kMaxackSet = 0x20;                // IP_CT_TCP_FLAG_MAXACK_SET
constexpr std::uint32_t kSmallestAcknowledged = 66'000;  // MAXACKWINCONST
constexpr std::uint32_t kLargestField = 65'535;

bool before(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b) < 0; }
bool after(std::uint32_t a, std::uint32_t b) { return before(b, a); }

std::uint16_t field_of(const WindowDirection& end) {
  const std::uint32_t granularity = 1U << end.scale;
  const std::uint64_t rounded = (std::uint64_t{end.maximum_window} + granularity - 1) >> end.scale;
  return static_cast<std::uint16_t>(std::min<std::uint64_t>(rounded, kLargestField));
}
std::uint32_t writable_window(const WindowDirection& end) { return std::uint32_t{field_of(end)} << end.scale; }

// What an end has acknowledged of the other's.
std::uint32_t acknowledged(const WindowDirection& end, const WindowDirection& other) {
  return (end.flags & kMaxackSet) ? end.maximum_acknowledgement : other.end;
}

// The one that is told first has no windows until it is told the second time. `merged`: the other one is told all that
// it needs at its first segment, which is exact only where its own window is not the larger one.
std::vector<Segment> sequence_for(const TcpWindow& window, bool first_is_reply, bool merged) {
  const WindowDirection& first = first_is_reply ? window.reply : window.original;
  const WindowDirection& second = first_is_reply ? window.original : window.reply;
  const std::uint32_t by_first = acknowledged(first, second), by_second = acknowledged(second, first);
  // An acknowledgement that makes `end`'s limit what it was. Both ends are known up to what was acknowledged so far.
  const auto edge = [](const WindowDirection& end, std::uint32_t known_end, const WindowDirection& other) {
    const std::uint32_t wanted = end.maximum_end - writable_window(other);
    const bool acceptable = !after(wanted, known_end) && after(wanted, known_end - kSmallestAcknowledged);
    return acceptable ? wanted : known_end;
  };
  std::vector<Segment> segments;
  const auto from_first = [&](std::uint32_t sequence, std::uint32_t acknowledgement, std::uint16_t field) {
    segments.push_back({first_is_reply, false, sequence, acknowledgement, field});
  };
  const auto from_second = [&](std::uint32_t sequence, std::uint32_t acknowledgement, std::uint16_t field) {
    segments.push_back({!first_is_reply, false, sequence, acknowledgement, field});
  };
  from_first(by_second, by_first, 0);
  if (merged) {
    from_second(by_first, by_second, field_of(second));
  } else {
    from_second(by_first, by_second, 0);
    from_second(by_first, edge(first, by_second, second), field_of(second));
  }
  from_first(first.end, edge(second, by_first, first), field_of(first));
  if (second.end != by_first) from_second(second.end, by_second, 0);
  return segments;
}

bool leads_to(const std::vector<Segment>& segments, const TcpWindow& wanted) {
  TcpWindow made;
  made.original.scale = wanted.original.scale;
  made.reply.scale = wanted.reply.scale;
  for (const auto& segment : segments) {
    if (!apply(segment, made)) return false;
  }
  const auto same = [](const WindowDirection& a, const WindowDirection& b) {
    return a.end == b.end && a.maximum_end == b.maximum_end && a.maximum_window == writable_window(b) &&
           (!(b.flags & kMaxackSet) || a.maximum_acknowledgement == b.maximum_acknowledgement);
  };
  return same(made.original, wanted.original) && same(made.reply, wanted.reply);
}

bool stands_for(const WindowDirection& found, const WindowDirection& wanted, const WindowDirection& other) {
  if (found.end != wanted.end || found.maximum_window != writable_window(wanted)) return false;
  if ((wanted.flags & kMaxackSet) &&
      (!(found.flags & kMaxackSet) || found.maximum_acknowledgement != wanted.maximum_acknowledgement)) {
    return false;
  }
  const std::uint32_t allowed = acknowledged(other, wanted) + writable_window(other);
  const std::uint32_t least = before(wanted.maximum_end, allowed) ? wanted.maximum_end : allowed;
  const std::uint32_t slack = std::max(writable_window(other), writable_window(wanted));
  return !before(found.maximum_end, least) && !after(found.maximum_end, wanted.maximum_end + slack);
}

// What the end would send now: its window as wide as the other's limit says, or as it ever was.
Segment present(const TcpWindow& window, bool from_reply, bool widest) {
  const WindowDirection& end = from_reply ? window.reply : window.original;
  const WindowDirection& other = from_reply ? window.original : window.reply;
  const std::uint32_t acknowledgement = acknowledged(end, other);
  const std::uint32_t open = other.maximum_end - acknowledgement;
  const bool expressible = open <= writable_window(end) && (open & ((1U << end.scale) - 1)) == 0;
  const std::uint16_t field = expressible && !widest ? static_cast<std::uint16_t>(open >> end.scale) : field_of(end);
  return {from_reply, false, end.end, acknowledgement, field};
}

std::uint64_t sum_of(const void* data, std::size_t size) {
  const auto* octet = static_cast<const std::uint8_t*>(data);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i + 1 < size; i += 2) sum += static_cast<std::uint64_t>(octet[i] << 8 | octet[i + 1]);
  return sum;
}

// RFC 9293 section 3.1, and then its complement: certainly wrong.
std::uint16_t wrong_checksum(const netlink::ConntrackTuple& tuple, std::size_t address_size, const std::uint8_t* header,
                             std::size_t size) {
  std::uint64_t sum = sum_of(tuple.source.octets.data(), address_size) +
                      sum_of(tuple.destination.octets.data(), address_size) + IPPROTO_TCP + size + sum_of(header, size);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<std::uint16_t>(sum ^ 0x00ff));  // right would be ~sum
}

std::vector<std::uint8_t> options_of(const Segment& segment) {
  std::vector<std::uint8_t> options;
  if (segment.flags & IP_CT_TCP_FLAG_SACK_PERM) options.insert(options.end(), {TCPOPT_SACK_PERMITTED, 2});
  if (segment.flags & IP_CT_TCP_FLAG_WINDOW_SCALE) options.insert(options.end(), {TCPOPT_WINDOW, 3, segment.scale});
  while (options.size() % 4 != 0) options.push_back(TCPOPT_NOP);
  return options;
}

void put_ip4(const netlink::ConntrackTuple& tuple, std::size_t payload, std::uint8_t* out) {
  iphdr header{};
  header.version = 4;
  header.ihl = 5;
  header.tot_len = htons(static_cast<std::uint16_t>(sizeof header + payload));
  header.ttl = 1;
  header.protocol = IPPROTO_TCP;
  std::memcpy(&header.saddr, tuple.source.octets.data(), sizeof header.saddr);
  std::memcpy(&header.daddr, tuple.destination.octets.data(), sizeof header.daddr);
  std::memcpy(out, &header, sizeof header);  // the raw socket adds the checksum
}

void put_ip6(const netlink::ConntrackTuple& tuple, std::size_t payload, std::uint8_t* out) {
  ip6_hdr header{};
  header.ip6_flow = htonl(6U << 28);
  header.ip6_plen = htons(static_cast<std::uint16_t>(payload));
  header.ip6_nxt = IPPROTO_TCP;
  header.ip6_hlim = 1;
  std::memcpy(&header.ip6_src, tuple.source.octets.data(), sizeof header.ip6_src);
  std::memcpy(&header.ip6_dst, tuple.destination.octets.data(), sizeof header.ip6_dst);
  std::memcpy(out, &header, sizeof header);
}

}  // namespace

bool is_exact(const TcpWindow& window) {
  const bool liberal = ((window.original.flags | window.reply.flags) & IP_CT_TCP_FLAG_BE_LIBERAL) != 0;
  return window.original.maximum_window != 0 && !liberal;
}

bool stands_for(const TcpWindow& found, const TcpWindow& wanted) {
  if (!is_exact(found)) return false;
  if (wanted.reply.maximum_window == 0) {
    return found.reply.maximum_window == 0 && found.original.end == wanted.original.end &&
           found.original.maximum_window == std::min(wanted.original.maximum_window, kLargestField) &&
           found.original.scale == wanted.original.scale;
  }
  return stands_for(found.original, wanted.original, wanted.reply) &&
         stands_for(found.reply, wanted.reply, wanted.original);
}

std::vector<Segment> segments_for(const TcpWindow& window) {
  if (window.original.maximum_window == 0) return {};
  if (window.reply.maximum_window == 0) {
    const WindowDirection& end = window.original;
    const auto field = static_cast<std::uint16_t>(std::min(end.maximum_window, kLargestField));
    return {{false, true, end.end - 1, 0, field, end.flags, end.scale}};
  }
  for (const bool first_is_reply : {false, true}) {
    auto segments = sequence_for(window, first_is_reply, true);
    if (leads_to(segments, window)) return segments;
  }
  return sequence_for(window, false, false);
}

std::vector<Segment> segments_between(const TcpWindow& standing, const TcpWindow& wanted) {
  if (!is_exact(standing) || standing.reply.maximum_window == 0 || wanted.reply.maximum_window == 0) return {};
  // Who speaks; an acknowledgement must not run ahead of what it acknowledges.
  static const std::vector<std::vector<bool>> kOrders{{false}, {true}, {false, true}, {true, false}};
  for (const bool widest : {false, true}) {
    for (const auto& order : kOrders) {
      std::vector<Segment> segments;
      TcpWindow made = standing;
      bool accepted = true;
      for (const bool from_reply : order) {
        segments.push_back(present(wanted, from_reply, widest));
        accepted = accepted && apply(segments.back(), made);
      }
      if (accepted && stands_for(made, wanted)) return segments;
    }
  }
  return {};
}

std::vector<Segment> segments_of(const WindowWrite& write) {
  return write.standing ? segments_between(*write.standing, write.window) : segments_for(write.window);
}

bool can_advance(const TcpWindow& standing, const TcpWindow& wanted) {
  return !segments_between(standing, wanted).empty();
}

bool apply(const Segment& segment, TcpWindow& window) {
  TcpWindow made = window;
  WindowDirection& sender = segment.from_reply ? made.reply : made.original;
  WindowDirection& receiver = segment.from_reply ? made.original : made.reply;
  if (segment.syn) {
    if (sender.maximum_window != 0) return false;  // not what is modelled
    sender.end = sender.maximum_end = segment.sequence + 1;
    sender.maximum_window = std::max<std::uint32_t>(segment.window, 1);
    sender.flags =
        static_cast<std::uint8_t>((sender.flags & IP_CT_TCP_FLAG_BE_LIBERAL) |
                                  (segment.flags & (IP_CT_TCP_FLAG_WINDOW_SCALE | IP_CT_TCP_FLAG_SACK_PERM)));
    sender.scale = segment.flags & IP_CT_TCP_FLAG_WINDOW_SCALE ? segment.scale : std::uint8_t{0};
    window = made;
    return true;
  }
  const std::uint32_t sequence = segment.sequence, acknowledgement = segment.acknowledgement;
  const std::uint32_t advertised = std::uint32_t{segment.window} << sender.scale;
  if (sender.maximum_window == 0) {
    sender.end = sequence;
    sender.maximum_window = std::max<std::uint32_t>(advertised, 1);
    sender.maximum_end = sequence + sender.maximum_window;
    if (receiver.maximum_window == 0) {
      receiver.end = receiver.maximum_end = acknowledgement;
    } else if (acknowledgement == receiver.end + 1) {
      ++receiver.end;
    }
  }
  const std::uint32_t least = receiver.end - std::max(sender.maximum_window, kSmallestAcknowledged) - 1;
  const bool in_receive_window =
      receiver.maximum_window == 0 || after(sequence, sender.end - receiver.maximum_window - 1);
  if (!before(sequence, sender.maximum_end + 1) || !before(acknowledgement, receiver.end + 1) ||
      !after(acknowledgement, least) || !in_receive_window) {
    return false;
  }
  sender.maximum_window = std::max(sender.maximum_window, advertised);
  if (after(sequence, sender.end)) sender.end = sequence;
  if (!(sender.flags & kMaxackSet) || after(acknowledgement, sender.maximum_acknowledgement)) {
    sender.maximum_acknowledgement = acknowledgement;
    sender.flags |= kMaxackSet;
  }
  if (after(acknowledgement + advertised, receiver.maximum_end - 1)) {
    receiver.maximum_end = acknowledgement + advertised + (advertised == 0 ? 1 : 0);
  }
  window = made;
  return true;
}

std::vector<std::uint8_t> packet_of(const Segment& segment, const netlink::ConntrackTuple& tuple) {
  const bool version4 = tuple.source.family == AF_INET;
  const auto options = segment.syn ? options_of(segment) : std::vector<std::uint8_t>{};
  tcphdr header{};
  header.source = htons(tuple.source_port);
  header.dest = htons(tuple.destination_port);
  header.seq = htonl(segment.sequence);
  header.ack_seq = htonl(segment.acknowledgement);
  const std::size_t size = sizeof header + options.size();
  header.doff = static_cast<std::uint16_t>(size / 4) & 0xf;
  header.syn = segment.syn ? 1 : 0;
  header.ack = segment.syn ? 0 : 1;
  header.window = htons(segment.window);

  const std::size_t ip = version4 ? sizeof(iphdr) : sizeof(ip6_hdr);
  std::vector<std::uint8_t> packet(ip + size);
  std::uint8_t* tcp = packet.data() + ip;
  std::memcpy(tcp, &header, sizeof header);
  if (!options.empty()) std::memcpy(tcp + sizeof header, options.data(), options.size());
  const std::uint16_t check = wrong_checksum(tuple, version4 ? 4 : 16, tcp, size);
  std::memcpy(tcp + offsetof(tcphdr, check), &check, sizeof check);
  if (version4) {
    put_ip4(tuple, size, packet.data());
  } else {
    put_ip6(tuple, size, packet.data());
  }
  return packet;
}

}  // namespace sami::windows
