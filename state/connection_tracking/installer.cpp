#include "state/connection_tracking/installer.h"

#include <fmt/format.h>
#include <linux/netfilter/nf_conntrack_common.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

namespace sami::state::connection_tracking {

using netlink::ConntrackEntry;
using netlink::ConntrackKey;
using netlink::ConntrackOperation;

Result<std::vector<InstallResult>> Installer::install(const std::vector<InstallItem>& items) {
  std::vector<InstallResult> results(items.size());
  std::vector<Work> works;
  std::set<ConntrackKey> keys;
  for (std::size_t i = 0; i < items.size(); ++i) {
    results[i].key = items[i].record.key;
    auto work = check(items[i], results[i]);
    if (!work) continue;
    // The same key again: what comes first is done first.
    if (!keys.insert(netlink::key_of(work->wanted)).second) {
      if (auto done = run(works); !done) return tl::unexpected(done.error());
      works.clear();
      keys = {netlink::key_of(work->wanted)};
    }
    works.push_back(std::move(*work));
  }
  if (auto done = run(works); !done) return tl::unexpected(done.error());
  return results;
}

Result<void> Installer::run(std::vector<Work>& works) {
  if (works.empty()) return {};
  if (auto advanced = advance_known(works); !advanced) return advanced;
  std::vector<ConntrackKey> keys;
  std::vector<std::size_t> known;  // what may stand here as ours is looked at first
  for (std::size_t i = 0; i < works.size(); ++i) {
    if (!works[i].item->ours || works[i].done) continue;
    keys.push_back(netlink::key_of(works[i].wanted));
    known.push_back(i);
  }
  const auto found = table_.get(keys);
  if (!found) return tl::unexpected(found.error());
  std::vector<std::optional<ConntrackEntry>> current(works.size());
  for (std::size_t i = 0; i < known.size(); ++i) current[known[i]] = found->at(i);
  if (auto read = read_standing(works, current); !read) return read;

  for (std::size_t i = 0; i < works.size(); ++i) {
    if (!works[i].done) plan(works[i], current[i]);
  }
  auto blocked = send(works);
  if (!blocked) return tl::unexpected(blocked.error());
  if (!blocked->empty()) {
    if (auto resolved = resolve(*blocked); !resolved) return resolved;
    blocked = send(works);
    if (!blocked) return tl::unexpected(blocked.error());
  }
  for (Work* work : *blocked) {
    work->result->outcome = InstallOutcome::Conflict;
    work->result->detail = fmt::format("{}: its place was taken again", to_string(work->wanted.original));
  }
  return write_windows(works);
}

void Installer::plan(Work& work, const std::optional<ConntrackEntry>& current) {
  if (work.item->record.gone) {
    work.success = InstallOutcome::Removed;
    if (current) {
      request(work, ConntrackOperation::Delete, *current);
    } else {
      finish(work, 0);
    }
    return;
  }
  if (!current) {
    work.success = InstallOutcome::Installed;
    if (may_create(work)) create(work);
    return;
  }
  if (work.item->only_if_absent) {
    work.result->outcome = InstallOutcome::Adopted;
    return;
  }
  const bool moved = scope_.conflict_rule == common::CONFLICT_RULE_MOVED;
  const std::uint32_t standing = current->status & netlink::kImportableStatus;
  const bool loses_status = (standing & ~work.wanted.status) != 0;
  // What an update cannot change.
  const bool other = current->reply != work.wanted.reply || current->helper != work.wanted.helper;
  if (other || (loses_status && !moved)) {
    replace(work, *current, InstallOutcome::Updated);
    return;
  }
  work.wanted.status |= standing;
  work.success = InstallOutcome::Updated;
  if (work.exact) return update(work, *current);
  request(work, ConntrackOperation::Update, work.wanted);
}

void Installer::create(Work& work) {
  work.write = work.exact;
  work.standing.reset();
  request(work, ConntrackOperation::Create, work.exact ? form_to_write(work) : work.wanted);
}

void Installer::replace(Work& work, const ConntrackEntry& blocking, InstallOutcome success) {
  work.previous = blocking;
  work.success = success;
  request(work, ConntrackOperation::Delete, blocking);
  create(work);
}

void Installer::request(Work& work, ConntrackOperation operation, const ConntrackEntry& entry) {
  work.pending = true;
  work.last_request = requests_.size();
  requests_.push_back({operation, entry});
}

Result<std::vector<Installer::Work*>> Installer::send(std::vector<Work>& works) {
  const auto errors = table_.apply(requests_);
  if (!errors) return tl::unexpected(errors.error());
  std::vector<Work*> blocked;
  for (Work& work : works) {
    if (!std::exchange(work.pending, false)) continue;
    const int error = errors->at(work.last_request);
    work.vanished = error == ENOENT && work.success == InstallOutcome::Updated;
    if (error == EEXIST || work.vanished) {
      blocked.push_back(&work);
    } else {
      finish(work, error);
    }
  }
  requests_.clear();
  planned_ = 0;
  std::vector<netlink::ConntrackRequest> restore;
  for (const Work& work : works) {
    if (!work.previous || succeeded(work.result->outcome)) continue;
    restore.push_back({ConntrackOperation::Create, *work.previous});
    if (auto& tcp = restore.back().entry.tcp) loosen(*tcp);  // its windows are gone
  }
  if (auto restored = table_.apply(restore); !restored) return tl::unexpected(restored.error());
  for (Work& work : works) work.previous.reset();
  return blocked;
}

Result<void> Installer::resolve(const std::vector<Work*>& blocked) {
  std::vector<ConntrackKey> keys;
  for (const Work* work : blocked) {
    const ConntrackEntry& wanted = work->wanted;
    keys.push_back(netlink::key_of(wanted));
    // The same flow, seen first from its other end.
    keys.push_back({wanted.reply, wanted.zone});
    keys.push_back({netlink::mirror(wanted.original), wanted.zone});
  }
  const auto found = table_.get(keys);
  if (!found) return tl::unexpected(found.error());
  for (std::size_t i = 0; i < blocked.size(); ++i) {
    Work& work = *blocked[i];
    const auto& same = found->at(3 * i);
    const auto& other = found->at(3 * i + 1) ? found->at(3 * i + 1) : found->at(3 * i + 2);
    const auto& standing = same ? same : other;
    const std::string name = to_string(work.wanted.original);
    if (same && (same->reply == work.wanted.reply || work.item->only_if_absent)) {
      work.result->outcome = InstallOutcome::Adopted;
    } else if (standing && work.item->only_if_absent) {
      work.result->outcome = InstallOutcome::Adopted;
    } else if (standing && scope_.conflict_rule == common::CONFLICT_RULE_MOVED) {
      replace(work, *standing, InstallOutcome::Replaced);
    } else if (standing) {
      work.result->outcome = InstallOutcome::Conflict;
      work.result->detail =
          fmt::format("{}: another entry stands here, translated to {}", name, to_string(standing->reply));
    } else if (work.vanished) {
      work.success = InstallOutcome::Installed;
      create(work);
    } else {
      work.result->outcome = InstallOutcome::Conflict;
      work.result->detail =
          fmt::format("{}: another connection has its translation {}", name, to_string(work.wanted.reply));
    }
  }
  return {};
}

bool Installer::may_create(const Work& work) {
  if (ledger_.size() + planned_ >= config_.capacity) ledger_.expire(now_);
  if (ledger_.size() + planned_ >= config_.capacity) {
    work.result->outcome = InstallOutcome::NoCapacity;
    work.result->detail = fmt::format("{} records of open migrations are the limit", config_.capacity);
    return false;
  }
  ++planned_;
  return true;
}

void Installer::finish(Work& work, int error) {
  InstallResult& result = *work.result;
  const Key& key = work.item->record.key;
  if (work.success == InstallOutcome::Removed && (error == 0 || error == ENOENT)) {
    ledger_.take(context_, key);
    result.outcome = InstallOutcome::Removed;
    return;
  }
  if (error == 0) {
    ledger_.put(context_, key, {work.recorded_timeout, work.wanted.timeout, now_, work.exact, work.form});
    result.outcome = work.success;
    return;
  }
  const bool full = error == ENOMEM || error == ENFILE || error == ENOSPC;
  result.outcome = full                  ? InstallOutcome::NoCapacity
                   : error == EOPNOTSUPP ? InstallOutcome::Unsupported
                                         : InstallOutcome::Failed;
  result.reduced = false;
  result.detail = fmt::format("{}: {}", to_string(work.wanted.original), std::strerror(error));
}

}  // namespace sami::state::connection_tracking
