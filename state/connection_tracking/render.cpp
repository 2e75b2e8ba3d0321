#include "state/connection_tracking/render.h"

#include <fmt/format.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <netinet/in.h>

#include <nlohmann/json.hpp>

#include "state/connection_tracking/record.h"

namespace sami::state::connection_tracking {

namespace {

using netlink::ConntrackTuple;

std::string protocol_name(std::uint8_t protocol) {
  switch (protocol) {
    case IPPROTO_TCP: return "tcp";
    case IPPROTO_UDP: return "udp";
    case IPPROTO_ICMP: return "icmp";
    case IPPROTO_ICMPV6: return "icmpv6";
    default: return "unknown";
  }
}

std::string tcp_state_name(std::uint8_t state) {
  constexpr const char* kNames[] = {"NONE",       "SYN_SENT", "SYN_RECV",  "ESTABLISHED", "FIN_WAIT",
                                    "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",       "SYN_SENT2"};
  return state < std::size(kNames) ? kNames[state] : "UNKNOWN";
}

std::string tuple_text(const ConntrackTuple& tuple) {
  const std::string addresses = fmt::format("src={} dst={}", to_string(tuple.source), to_string(tuple.destination));
  if (netlink::is_icmp(tuple.protocol)) {
    return fmt::format("{} type={} code={} id={}", addresses, tuple.destination_port >> 8,
                       tuple.destination_port & 0xff, tuple.source_port);
  }
  return fmt::format("{} sport={} dport={}", addresses, tuple.source_port, tuple.destination_port);
}

nlohmann::json tuple_json(const ConntrackTuple& tuple) {
  nlohmann::json json{{"source", to_string(tuple.source)}, {"destination", to_string(tuple.destination)}};
  if (netlink::is_icmp(tuple.protocol)) {
    json["id"] = tuple.source_port;
    json["type"] = tuple.destination_port >> 8;
    json["code"] = tuple.destination_port & 0xff;
  } else {
    json["source_port"] = tuple.source_port;
    json["destination_port"] = tuple.destination_port;
  }
  return json;
}

Result<Connection> read(const std::string& body) {
  auto connection = decode_body(body);
  if (!connection) return failure(ErrorKind::Corrupt, connection.error().message);
  return connection;
}

}  // namespace

Result<std::string> render_text(const std::string& body) {
  const auto connection = read(body);
  if (!connection) return tl::unexpected(connection.error());
  const auto& entry = connection->entry;
  std::string line = fmt::format("{} {} {} {}", connection->vn_name, protocol_name(entry.original.protocol),
                                 entry.original.protocol, entry.timeout);
  if (entry.tcp) line += " " + tcp_state_name(entry.tcp->state);
  line += " " + tuple_text(entry.original);
  if (!(entry.status & IPS_SEEN_REPLY)) line += " [UNREPLIED]";
  line += " " + tuple_text(entry.reply);
  if (entry.status & IPS_ASSURED) line += " [ASSURED]";
  line += fmt::format(" mark={}", entry.mark);
  if (!entry.helper.empty()) line += " helper=" + entry.helper;
  return line;
}

Result<std::string> render_json(const std::string& body) {
  const auto connection = read(body);
  if (!connection) return tl::unexpected(connection.error());
  const auto& entry = connection->entry;
  nlohmann::json status = nlohmann::json::array();
  if (entry.status & IPS_SEEN_REPLY) status.push_back("SEEN_REPLY");
  if (entry.status & IPS_ASSURED) status.push_back("ASSURED");
  nlohmann::json json{{"vn", connection->vn_name},
                      {"protocol", protocol_name(entry.original.protocol)},
                      {"protocol_number", entry.original.protocol},
                      {"original", tuple_json(entry.original)},
                      {"reply", tuple_json(entry.reply)},
                      {"status", status},
                      {"timeout_seconds", entry.timeout},
                      {"mark", entry.mark}};
  if (entry.tcp) {
    json["tcp"] = {{"state", tcp_state_name(entry.tcp->state)},
                   {"scale_original", entry.tcp->scale_original},
                   {"scale_reply", entry.tcp->scale_reply},
                   {"flags_original", entry.tcp->flags_original},
                   {"flags_reply", entry.tcp->flags_reply}};
  }
  if (!entry.helper.empty()) json["helper"] = entry.helper;
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sami::state::connection_tracking
