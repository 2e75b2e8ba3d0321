#include "state/connection_tracking/record.h"

#include <fmt/format.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <netinet/in.h>

#include <algorithm>

#include "state/connection_tracking/connection_tracking.pb.h"

namespace sami::state::connection_tracking {

namespace {

namespace v1 = ::sami::state::connection_tracking::v1;
using netlink::ConntrackTcp;
using netlink::ConntrackTuple;
using netlink::IpAddress;

constexpr std::size_t kMaximumBody = 4096;
constexpr std::size_t kMaximumName = 64;
constexpr std::uint32_t kMaximumTimeout = 7 * 24 * 3600;
constexpr std::uint32_t kMaximumScale = 14;  // RFC 7323 section 2.3
constexpr std::size_t kMaximumHelper = 15;   // NF_CT_HELPER_NAME_LEN with its zero
constexpr std::size_t kMaximumLabels = 16;   // NF_CT_LABELS_MAX_SIZE

tl::unexpected<Error> invalid(const std::string& what) {
  return failure(ErrorKind::InvalidInput, "connection_tracking record: " + what);
}

std::size_t size_of(const IpAddress& address) { return address.family == AF_INET ? 4 : 16; }

std::string octets(const IpAddress& address) {
  return {address.octets.begin(), address.octets.begin() + size_of(address)};
}

IpAddress address_of(const char* data, std::size_t size) {
  IpAddress address;
  address.family = size == 4 ? AF_INET : AF_INET6;
  std::copy_n(data, size, address.octets.begin());
  return address;
}

void encode_tuple(const ConntrackTuple& tuple, v1::Tuple& out) {
  out.set_source(octets(tuple.source));
  out.set_destination(octets(tuple.destination));
  out.set_protocol(tuple.protocol);
  out.set_source_port(tuple.source_port);
  out.set_destination_port(tuple.destination_port);
}

Result<ConntrackTuple> decode_tuple(const v1::Tuple& in, const char* name) {
  const std::size_t size = in.source().size();
  if ((size != 4 && size != 16) || in.destination().size() != size) {
    return invalid(fmt::format("{}: addresses of {} and {} octets; expected 4 and 4, or 16 and 16", name, size,
                               in.destination().size()));
  }
  if (in.protocol() == 0 || in.protocol() > 255) return invalid(fmt::format("{}: protocol {}", name, in.protocol()));
  if (in.source_port() > 0xffff || in.destination_port() > 0xffff) {
    return invalid(fmt::format("{}: ports {} and {}; at most 65535", name, in.source_port(), in.destination_port()));
  }
  return ConntrackTuple{address_of(in.source().data(), size), address_of(in.destination().data(), size),
                        static_cast<std::uint8_t>(in.protocol()), static_cast<std::uint16_t>(in.source_port()),
                        static_cast<std::uint16_t>(in.destination_port())};
}

Result<ConntrackTcp> decode_tcp(const v1::TcpState& in) {
  if (in.state() == TCP_CONNTRACK_NONE || in.state() >= TCP_CONNTRACK_MAX) {
    return invalid(fmt::format("tcp.state is {}; expected 1 to {}", in.state(), TCP_CONNTRACK_MAX - 1));
  }
  if (in.scale_original() > kMaximumScale || in.scale_reply() > kMaximumScale) {
    return invalid(fmt::format("tcp scales {} and {}; at most 14", in.scale_original(), in.scale_reply()));
  }
  const auto octet = [](std::uint32_t value) { return static_cast<std::uint8_t>(value & 0xff); };
  return ConntrackTcp{octet(in.state()), octet(in.scale_original()), octet(in.scale_reply()),
                      octet(in.flags_original() & netlink::kTcpFlagsMask),
                      octet(in.flags_reply() & netlink::kTcpFlagsMask)};
}

constexpr std::uint8_t kMaxackSet = 0x20;  // IP_CT_TCP_FLAG_MAXACK_SET

void encode_window(const windows::WindowDirection& from, v1::Window& out) {
  out.set_end(from.end);
  out.set_maximum_end(from.maximum_end);
  out.set_maximum_window(from.maximum_window);
  if (from.flags & kMaxackSet) out.set_maximum_acknowledgement(from.maximum_acknowledgement);
}

windows::WindowDirection decode_window(const v1::Window& in, std::uint8_t scale, std::uint8_t flags) {
  const auto carried = static_cast<std::uint8_t>(flags & netlink::kTcpFlagsMask & ~IP_CT_TCP_FLAG_BE_LIBERAL);
  const auto acknowledged = in.has_maximum_acknowledgement() ? kMaxackSet : std::uint8_t{0};
  return {in.end(),
          in.maximum_end(),
          in.maximum_window(),
          in.maximum_acknowledgement(),
          scale,
          static_cast<std::uint8_t>(carried | acknowledged)};
}

Result<std::optional<windows::TcpWindow>> decode_windows(const v1::TcpState& in, const ConntrackTcp& tcp) {
  if (!in.has_window_original() && !in.has_window_reply()) return std::nullopt;
  windows::TcpWindow window;
  window.original = decode_window(in.window_original(), tcp.scale_original, tcp.flags_original);
  window.reply = decode_window(in.window_reply(), tcp.scale_reply, tcp.flags_reply);
  if (!is_tellable(window, tcp)) return invalid("tcp: window of one end without the other's, or of 0");
  return window;
}

Result<void> check_reply(const netlink::ConntrackEntry& entry) {
  const ConntrackTuple plain = netlink::mirror(entry.original);
  if (entry.reply.protocol != plain.protocol || entry.reply.source.family != plain.source.family) {
    return invalid("reply: another protocol or address family than original");
  }
  if (netlink::is_icmp(plain.protocol) && entry.reply.destination_port != plain.destination_port) {
    return invalid("reply: ICMP type and code do not answer original's");
  }
  return {};
}

Result<void> decode_properties(const v1::Connection& in, netlink::ConntrackEntry& entry) {
  entry.status = in.status() & kRecordedStatus;
  entry.timeout = std::clamp(in.timeout_seconds(), 1U, kMaximumTimeout);
  entry.mark = in.mark();
  if (in.has_tcp() != (entry.original.protocol == IPPROTO_TCP))
    return invalid("tcp: expected with protocol 6, and only there");
  if (in.has_tcp()) {
    auto tcp = decode_tcp(in.tcp());
    if (!tcp) return tl::unexpected(tcp.error());
    entry.tcp = *tcp;
  }
  if (in.labels().size() > kMaximumLabels || in.labels().size() % 4 != 0)
    return invalid("labels: expected 0, 4, 8, 12 or 16 octets");
  entry.labels.assign(in.labels().begin(), in.labels().end());
  const bool printable =
      std::all_of(in.helper().begin(), in.helper().end(), [](char c) { return c > ' ' && c <= '~'; });
  if (in.helper().size() > kMaximumHelper || !printable)
    return invalid("helper: expected at most 15 printable characters");
  entry.helper = in.helper();
  return {};
}

// FNV-1a, then mixed so that sums of digests do not cancel.
class Hash {
 public:
  void add(const void* data, std::size_t size) {
    const auto* octet = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < size; ++i) value_ = (value_ ^ octet[i]) * 0x100000001b3ULL;
  }
  void add(std::uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) {
      const auto octet = static_cast<unsigned char>(number >> shift);
      add(&octet, 1);
    }
  }
  void add(const std::string& text) {
    add(text.size());
    add(text.data(), text.size());
  }
  std::uint64_t value() const {
    std::uint64_t mixed = (value_ ^ (value_ >> 33)) * 0xff51afd7ed558ccdULL;
    mixed = (mixed ^ (mixed >> 33)) * 0xc4ceb9fe1a85ec53ULL;
    return std::max<std::uint64_t>(mixed ^ (mixed >> 33), 1);
  }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325ULL;
};

void add_window(Hash& hash, const windows::WindowDirection& direction) {
  const bool acknowledged = (direction.flags & kMaxackSet) != 0;
  for (const std::uint32_t field : {direction.end, direction.maximum_end, direction.maximum_window,
                                    acknowledged ? direction.maximum_acknowledgement : 0U, acknowledged ? 1U : 0U}) {
    hash.add(field);
  }
}

}  // namespace

bool is_tellable(const windows::TcpWindow& window, const netlink::ConntrackTcp& tcp) {
  const bool both = window.reply.maximum_window != 0;
  return windows::is_exact(window) && both == (tcp.state != TCP_CONNTRACK_SYN_SENT) &&
         tcp.state != TCP_CONNTRACK_SYN_SENT2;
}

std::string encode_body(const Connection& connection) {
  const auto& entry = connection.entry;
  v1::Connection out;
  out.set_vn_name(connection.vn_name);
  encode_tuple(entry.original, *out.mutable_original());
  if (entry.reply != netlink::mirror(entry.original)) encode_tuple(entry.reply, *out.mutable_reply());
  out.set_status(entry.status & kRecordedStatus);
  out.set_timeout_seconds(entry.timeout);
  out.set_mark(entry.mark);
  if (entry.tcp) {
    auto& tcp = *out.mutable_tcp();
    tcp.set_state(entry.tcp->state);
    tcp.set_scale_original(entry.tcp->scale_original);
    tcp.set_scale_reply(entry.tcp->scale_reply);
    tcp.set_flags_original(entry.tcp->flags_original & netlink::kTcpFlagsMask);
    tcp.set_flags_reply(entry.tcp->flags_reply & netlink::kTcpFlagsMask);
    if (connection.window) encode_window(connection.window->original, *tcp.mutable_window_original());
    if (connection.window && connection.window->reply.maximum_window != 0)
      encode_window(connection.window->reply, *tcp.mutable_window_reply());
  }
  const bool labelled =
      std::any_of(entry.labels.begin(), entry.labels.end(), [](std::uint8_t octet) { return octet != 0; });
  if (labelled) out.set_labels(entry.labels.data(), entry.labels.size());
  out.set_helper(entry.helper);
  return out.SerializeAsString();
}

Result<Connection> decode_body(const std::string& body) {
  v1::Connection in;
  if (body.size() > kMaximumBody) return invalid(fmt::format("{} octets; at most {}", body.size(), kMaximumBody));
  if (!in.ParseFromString(body)) return invalid("not a protobuf message");
  const bool control = std::any_of(in.vn_name().begin(), in.vn_name().end(),
                                   [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; });
  if (in.vn_name().empty() || in.vn_name().size() > kMaximumName || control) {
    return invalid("vn_name: expected 1 to 64 octets without control characters");
  }
  Connection connection;
  connection.vn_name = in.vn_name();
  auto original = decode_tuple(in.original(), "original");
  if (!original) return tl::unexpected(original.error());
  connection.entry.original = *original;
  connection.entry.reply = netlink::mirror(*original);
  if (in.has_reply()) {
    auto reply = decode_tuple(in.reply(), "reply");
    if (!reply) return tl::unexpected(reply.error());
    connection.entry.reply = *reply;
  }
  if (auto checked = check_reply(connection.entry); !checked) return tl::unexpected(checked.error());
  if (auto decoded = decode_properties(in, connection.entry); !decoded) return tl::unexpected(decoded.error());
  if (in.has_tcp()) {
    auto window = decode_windows(in.tcp(), *connection.entry.tcp);
    if (!window) return tl::unexpected(window.error());
    connection.window = *window;
  }
  return connection;
}

Key encode_key(const KeyParts& parts) {
  const ConntrackTuple& tuple = parts.original;
  Key key;
  key += static_cast<char>(parts.vn_name.size());
  key += parts.vn_name;
  key += static_cast<char>(tuple.source.family == AF_INET ? 4 : 6);
  key += static_cast<char>(tuple.protocol);
  key += octets(tuple.source);
  key += octets(tuple.destination);
  for (const std::uint16_t port : {tuple.source_port, tuple.destination_port}) {
    key += static_cast<char>(port >> 8);
    key += static_cast<char>(port & 0xff);
  }
  return key;
}

Result<KeyParts> decode_key(const Key& key) {
  const auto octet = [&key](std::size_t at) { return static_cast<std::uint8_t>(key[at]); };
  const std::size_t name = key.empty() ? 0 : octet(0);
  if (name == 0 || name > kMaximumName || key.size() < 1 + name + 2) return invalid("key: no VN name");
  std::size_t at = 1 + name;
  const std::uint8_t version = octet(at), protocol = octet(at + 1);
  if (version != 4 && version != 6) return invalid(fmt::format("key: IP version {}", version));
  const std::size_t size = version == 4 ? 4 : 16;
  if (key.size() != at + 2 + 2 * size + 4) return invalid(fmt::format("key: {} octets", key.size()));
  at += 2;
  KeyParts parts;
  parts.vn_name = key.substr(1, name);
  parts.original.protocol = protocol;
  parts.original.source = address_of(key.data() + at, size);
  parts.original.destination = address_of(key.data() + at + size, size);
  at += 2 * size;
  parts.original.source_port = static_cast<std::uint16_t>(octet(at) << 8 | octet(at + 1));
  parts.original.destination_port = static_cast<std::uint16_t>(octet(at + 2) << 8 | octet(at + 3));
  return parts;
}

ConntrackTcp normal_tcp(const ConntrackTcp& tcp) {
  constexpr std::uint8_t kCarried = netlink::kTcpFlagsMask & ~IP_CT_TCP_FLAG_BE_LIBERAL;
  ConntrackTcp normal = tcp;
  normal.flags_original &= kCarried;
  normal.flags_reply &= kCarried;
  if (tcp.state == TCP_CONNTRACK_SYN_SENT) {
    // The other end has not spoken; the destination pretends that it agreed, or the scale would be lost.
    normal.flags_reply = 0;
    normal.scale_reply = 0;
    if (!(normal.flags_original & IP_CT_TCP_FLAG_WINDOW_SCALE)) normal.scale_original = 0;
  } else if (!(normal.flags_original & normal.flags_reply & IP_CT_TCP_FLAG_WINDOW_SCALE)) {
    normal.scale_original = normal.scale_reply = 0;
  }
  return normal;
}

Digest digest_of(const Connection& connection) {
  const auto& entry = connection.entry;
  Hash hash;
  hash.add(encode_key({connection.vn_name, entry.original}));
  hash.add(octets(entry.reply.source));
  hash.add(octets(entry.reply.destination));
  hash.add(std::uint64_t{entry.reply.source_port} << 16 | entry.reply.destination_port);
  hash.add(entry.status & (IPS_SEEN_REPLY | IPS_ASSURED));
  hash.add(entry.mark);
  hash.add(entry.helper);
  if (entry.tcp) {
    const ConntrackTcp tcp = normal_tcp(*entry.tcp);
    for (const std::uint8_t field :
         {tcp.state, tcp.scale_original, tcp.scale_reply, tcp.flags_original, tcp.flags_reply}) {
      hash.add(field);
    }
  }
  if (connection.window) {
    add_window(hash, connection.window->original);
    if (connection.window->reply.maximum_window != 0) add_window(hash, connection.window->reply);
  }
  return hash.value();
}

}  // namespace sami::state::connection_tracking
