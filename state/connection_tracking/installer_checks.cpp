// What a record must be before the kernel hears of it.
#include <fmt/format.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <netinet/in.h>

#include <algorithm>

#include "state/connection_tracking/installer.h"

namespace sami::state::connection_tracking {

using netlink::ConntrackEntry;

namespace {

bool is_supported(std::uint8_t protocol) {
  return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || netlink::is_icmp(protocol);
}

// A scale counts only when both directions have one; the reply's comes with the SYN-ACK.
void keep_scale(netlink::ConntrackTcp& tcp) {
  if (tcp.state == TCP_CONNTRACK_SYN_SENT && tcp.flags_original & IP_CT_TCP_FLAG_WINDOW_SCALE) {
    tcp.flags_reply |= IP_CT_TCP_FLAG_WINDOW_SCALE;
    tcp.scale_reply = 0;
  }
}

std::string reductions(const ConntrackEntry& entry, const std::string& why_liberal) {
  std::string text;
  const auto add = [&text](const std::string& what) { text += (text.empty() ? "" : "; ") + what; };
  if (entry.tcp && !why_liberal.empty()) add(liberal_detail(why_liberal));
  if (!entry.helper.empty()) add("expectations of helper " + entry.helper + " are not carried");
  if (!entry.labels.empty()) add("labels are kept only where a rule uses them");
  if (entry.status & IPS_EXPECTED) add("its master connection is not carried");
  return text;
}

void refuse(InstallResult& result, InstallOutcome outcome, std::string detail) {
  result.outcome = outcome;
  result.detail = std::move(detail);
}

}  // namespace

std::optional<Installer::Work> Installer::check(const InstallItem& item, InstallResult& result) {
  if (item.record.gone) return check_gone(item, result);
  auto connection = decode_body(item.record.body);
  if (!connection) {
    refuse(result, InstallOutcome::Malformed, connection.error().message);
    return std::nullopt;
  }
  if (encode_key({connection->vn_name, connection->entry.original}) != item.record.key) {
    refuse(result, InstallOutcome::Malformed, "connection_tracking record: the key is not the body's");
    return std::nullopt;
  }
  if (!check_connection(*connection, result)) return std::nullopt;
  result.digest = digest_of(*connection);
  const std::string liberal = connection->entry.tcp ? why_liberal(*connection) : "";
  result.detail = reductions(connection->entry, liberal);
  result.reduced = !result.detail.empty();

  Work work;
  work.item = &item;
  work.result = &result;
  work.recorded_timeout = connection->entry.timeout;
  work.exact = connection->entry.tcp && liberal.empty();
  work.form = connection->window ? digest_of({connection->vn_name, connection->entry}) : result.digest;
  if (connection->window && !work.exact) result.expected = work.form;
  work.asked = std::move(*connection);
  work.wanted = work.asked.entry;
  work.wanted.zone = zones_.at(work.asked.vn_name);
  work.wanted.status = (work.wanted.status & netlink::kImportableStatus) | IPS_CONFIRMED;
  work.wanted.timeout = std::max(work.recorded_timeout, config_.hold_seconds);
  if (work.wanted.tcp) {
    keep_scale(*work.wanted.tcp);
    work.wanted.tcp->flags_original &= static_cast<std::uint8_t>(~IP_CT_TCP_FLAG_BE_LIBERAL);
    work.wanted.tcp->flags_reply &= static_cast<std::uint8_t>(~IP_CT_TCP_FLAG_BE_LIBERAL);
    if (!work.exact) loosen(*work.wanted.tcp);
  }
  return work;
}

std::optional<Installer::Work> Installer::check_gone(const InstallItem& item, InstallResult& result) {
  const auto parts = decode_key(item.record.key);
  if (!parts) {
    refuse(result, InstallOutcome::Malformed, parts.error().message);
    return std::nullopt;
  }
  const auto zone = zones_.find(parts->vn_name);
  if (!item.ours || item.only_if_absent || zone == zones_.end()) {
    result.outcome = InstallOutcome::Removed;
    return std::nullopt;
  }
  Work work;
  work.item = &item;
  work.result = &result;
  work.wanted.original = parts->original;
  work.wanted.zone = zone->second;
  return work;
}

bool Installer::check_connection(const Connection& connection, InstallResult& result) const {
  const ConntrackEntry& entry = connection.entry;
  const std::string name = to_string(entry.original);
  if (!match_.takes(connection.vn_name, entry.original, entry.reply)) {
    if (!zones_.contains(connection.vn_name)) {
      refuse(result, InstallOutcome::Unsupported,
             fmt::format("{}: VN {} has no zone in context {}", name, connection.vn_name, context_));
    } else {
      refuse(result, InstallOutcome::Foreign,
             fmt::format("{} in VN {} is not a connection of {}, or its peer is not selected", name, connection.vn_name,
                         scope_.subject.id()));
    }
    return false;
  }
  if (!is_supported(entry.original.protocol)) {
    refuse(result, InstallOutcome::Unsupported, name + ": only TCP, UDP and ICMP are carried");
    return false;
  }
  if (entry.status & IPS_SEQ_ADJUST) {
    refuse(result, InstallOutcome::Unsupported, name + ": adjusted sequence numbers are not carried");
    return false;
  }
  return check_translation(entry, result);
}

// Packets that are sent to a translated address must arrive here.
bool Installer::check_translation(const ConntrackEntry& entry, InstallResult& result) const {
  const auto is_ours = [&](const netlink::IpAddress& address) {
    const auto at = std::find_if(config_.external_addresses.begin(), config_.external_addresses.end(),
                                 [&](const ExternalAddress& external) { return external.address == address; });
    const std::string name = to_string(entry.original) + ": external address " + to_string(address);
    if (at == config_.external_addresses.end()) {
      refuse(result, InstallOutcome::MissingExternalAddress, name + " is not one of this host");
    } else if (!at->moves_with_subject) {
      refuse(result, InstallOutcome::SharedExternalAddress, name + " is shared: it stays with its host");
    } else {
      return true;
    }
    return false;
  };
  // The peer answers to the translated source.
  if (entry.reply.destination != entry.original.source && !is_ours(entry.reply.destination)) return false;
  // The peer calls the subject by the original destination. Where the subject is the caller, its packets come by
  // anyway.
  const bool responds = match_.responds(entry.original, entry.reply);
  return !responds || entry.original.destination == entry.reply.source || is_ours(entry.original.destination);
}

}  // namespace sami::state::connection_tracking
