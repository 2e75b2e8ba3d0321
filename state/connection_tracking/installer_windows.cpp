// Windows at the destination: when they are exact, and how they come into the kernel.
#include <fmt/format.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>

#include "state/connection_tracking/installer.h"

namespace sami::state::connection_tracking {

using netlink::ConntrackEntry;
using netlink::ConntrackKey;
using netlink::ConntrackOperation;

void loosen(netlink::ConntrackTcp& tcp) {
  tcp.flags_original |= IP_CT_TCP_FLAG_BE_LIBERAL;
  tcp.flags_reply |= IP_CT_TCP_FLAG_BE_LIBERAL;
}

std::string liberal_detail(const std::string& why) {
  return fmt::format("imported BE_LIBERAL, its windows are not checked: {}", why);
}

namespace {

bool segments_keep(std::uint8_t state) {
  return state == TCP_CONNTRACK_ESTABLISHED || state == TCP_CONNTRACK_CLOSE_WAIT || state == TCP_CONNTRACK_TIME_WAIT;
}

// It is what is wanted but for windows and timeout, and segments leave it so. The timeout they set is that of a
// connection that had a packet just now, as this one had at the source.
bool is_settled(const ConntrackEntry& current, const ConntrackEntry& wanted) {
  const auto carried = [](netlink::ConntrackTcp tcp) {
    tcp.flags_original &= netlink::kTcpFlagsMask;
    tcp.flags_reply &= netlink::kTcpFlagsMask;
    return tcp;
  };
  return current.tcp && segments_keep(wanted.tcp->state) && carried(*current.tcp) == carried(*wanted.tcp) &&
         current.mark == wanted.mark && (wanted.status & IPS_ASSURED) != 0 &&
         ((current.status ^ wanted.status) & netlink::kImportableStatus) == 0;
}

}  // namespace

std::string Installer::why_liberal(const Connection& connection) const {
  if (scope_.conflict_rule == common::CONFLICT_RULE_MOVED) return "the subject moved before its state was read";
  if (access_.windows == nullptr) return access_.why_not;
  if (!connection.window) return "the source did not tell them";
  return "";
}

Result<void> Installer::advance_known(std::vector<Work>& works) {
  std::vector<ConntrackKey> keys;
  std::vector<std::pair<Work*, Held*>> asked;
  for (Work& work : works) {
    const bool quick = work.exact && work.item->ours && !work.item->only_if_absent &&
                       (work.wanted.status & IPS_ASSURED) != 0 && segments_keep(work.wanted.tcp->state);
    Held* held = quick ? ledger_.find(context_, work.item->record.key) : nullptr;
    if (held == nullptr || !held->exact || held->form != work.form) continue;
    keys.push_back(netlink::key_of(work.wanted));
    asked.emplace_back(&work, held);
  }
  if (keys.empty()) return {};
  const auto found = access_.windows->read(keys);
  if (!found) return tl::unexpected(found.error());
  for (std::size_t i = 0; i < asked.size(); ++i) {
    auto [work, held] = asked[i];
    if (!found->at(i)) continue;
    const bool in_place = windows::stands_for(*found->at(i), *work->asked.window);
    if (!in_place && !windows::can_advance(*found->at(i), *work->asked.window)) continue;
    work->done = work->settled = true;
    work->write = !in_place;
    work->standing = found->at(i);
    work->result->outcome = InstallOutcome::Updated;
    if (work->write) held->given = held->recorded;  // the timeout that the segments set is the right one
  }
  return {};
}

Result<void> Installer::read_standing(std::vector<Work>& works,
                                      const std::vector<std::optional<ConntrackEntry>>& current) {
  std::vector<ConntrackKey> keys;
  std::vector<Work*> asked;
  for (std::size_t i = 0; i < works.size(); ++i) {
    if (!works[i].exact || works[i].done || !current[i]) continue;
    keys.push_back(netlink::key_of(*current[i]));
    asked.push_back(&works[i]);
  }
  if (keys.empty()) return {};
  const auto found = access_.windows->read(keys);
  if (!found) return tl::unexpected(found.error());
  for (std::size_t i = 0; i < asked.size(); ++i) asked[i]->standing = found->at(i);
  return {};
}

// The segments make an entry ASSURED that is in SYN_RECV or ESTABLISHED. In CLOSE_WAIT they change nothing.
ConntrackEntry Installer::form_to_write(const Work& work) const {
  ConntrackEntry entry = work.wanted;
  const bool assured = (entry.status & IPS_ASSURED) != 0;
  if (!assured && entry.tcp->state != TCP_CONNTRACK_SYN_SENT) entry.tcp->state = TCP_CONNTRACK_CLOSE_WAIT;
  return entry;
}

// Windows that stand are advanced where packets could do so, in a pause the usual case; otherwise the entry is made
// anew.
void Installer::update(Work& work, const ConntrackEntry& current) {
  const bool has_windows = work.standing && work.standing->original.maximum_window != 0;
  if (has_windows && windows::stands_for(*work.standing, *work.asked.window)) {
    return request(work, ConntrackOperation::Update, work.wanted);
  }
  work.write = true;
  if (!has_windows) {
    work.standing.reset();
    return request(work, ConntrackOperation::Update, form_to_write(work));
  }
  if (!windows::can_advance(*work.standing, *work.asked.window)) {
    return replace(work, current, InstallOutcome::Updated);
  }
  work.settled = is_settled(current, work.wanted);
  if (work.settled) return finish(work, 0);
  request(work, ConntrackOperation::Update, form_to_write(work));
}

Result<void> Installer::write_windows(std::vector<Work>& works) {
  std::vector<windows::WindowWrite> writes;
  std::vector<netlink::ConntrackRequest> settle;
  std::vector<ConntrackKey> keys;
  std::vector<Work*> exact;
  for (Work& work : works) {
    const InstallOutcome outcome = work.result->outcome;
    if (!work.exact || !succeeded(outcome) || outcome == InstallOutcome::Adopted) continue;
    exact.push_back(&work);
    keys.push_back(netlink::key_of(work.wanted));
    if (!work.write) continue;
    writes.push_back({work.wanted.original, work.wanted.reply, work.wanted.zone, *work.asked.window, work.standing});
    if (!work.settled) settle.push_back({ConntrackOperation::Update, work.wanted});
  }
  if (exact.empty()) return {};
  const auto written = access_.windows->write(writes);  // what came of it is read back
  if (auto settled = table_.apply(settle); !settled) return tl::unexpected(settled.error());
  const auto found = access_.windows->read(keys);
  std::vector<netlink::ConntrackRequest> loose;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    judge(*exact[i], written && found ? found->at(i) : std::nullopt, loose);
  }
  if (auto loosened = table_.apply(loose); !loosened) return tl::unexpected(loosened.error());
  return {};
}

void Installer::judge(Work& work, const std::optional<windows::TcpWindow>& found,
                      std::vector<netlink::ConntrackRequest>& loose) {
  Connection standing = work.asked;
  standing.window.reset();
  if (found && windows::stands_for(*found, *work.asked.window)) {
    standing.window = found;
  } else {
    loosen(*work.wanted.tcp);
    loose.push_back({ConntrackOperation::Update, work.wanted});
    if (Held* held = ledger_.find(context_, work.item->record.key)) held->exact = false;
    InstallResult& result = *work.result;
    result.detail = liberal_detail("they read back otherwise than they were written") +
                    (result.detail.empty() ? "" : "; " + result.detail);
    result.reduced = true;
  }
  work.result->expected = digest_of(standing);
}

}  // namespace sami::state::connection_tracking
