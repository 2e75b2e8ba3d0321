// Brings records into place at the destination, a batch at a time (state/driver.h, install). One with windows is made
// or updated first, then its windows are written, then it is given its state, flags and timeout, then its windows are
// read back; an entry that stands with older windows is made anew, because windows only move the way packets move them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernel/netlink/conntrack.h"
#include "state/connection_tracking/driver.h"
#include "state/connection_tracking/ledger.h"
#include "state/connection_tracking/record.h"
#include "state/connection_tracking/scope_match.h"

namespace sami::state::connection_tracking {

// Made liberal: accepted whatever its windows say.
void loosen(netlink::ConntrackTcp& tcp);
std::string liberal_detail(const std::string& why);

// One call of install.
class Installer {
 public:
  Installer(netlink::ConntrackTable& table, const ConnectionTrackingConfig& config, const WindowAccess& access,
            Ledger& ledger, const Scope& scope, std::string context, const Zones& zones, const ScopeMatch& match,
            Instant now)
      : table_(table),
        config_(config),
        access_(access),
        ledger_(ledger),
        scope_(scope),
        context_(std::move(context)),
        zones_(zones),
        match_(match),
        now_(now) {}

  Result<std::vector<InstallResult>> install(const std::vector<InstallItem>& items);

 private:
  // What is being done for one item.
  struct Work {
    const InstallItem* item = nullptr;
    InstallResult* result = nullptr;
    Connection asked;  // the record
    netlink::ConntrackEntry wanted;
    bool exact = false;                          // with asked.window; otherwise TCP is liberal
    bool write = false;                          // the windows are to be written
    Digest form = 0;                             // of asked, without windows
    bool done = false;                           // nothing more than windows is to be done
    bool settled = false;                        // the entry is otherwise as wanted, and writing does not alter that
    std::optional<windows::TcpWindow> standing;  // of what stands here as ours
    std::uint32_t recorded_timeout = 0;
    std::optional<netlink::ConntrackEntry> previous;  // what was deleted to make room
    InstallOutcome success = InstallOutcome::Installed;
    std::size_t last_request = 0;  // its errno is the work's
    bool pending = false;          // has requests in this round
    bool vanished = false;         // ended between being looked at and being updated
  };

  // Fills the result and returns nothing when the item needs no kernel.
  std::optional<Work> check(const InstallItem& item, InstallResult& result);
  std::optional<Work> check_gone(const InstallItem& item, InstallResult& result);
  bool check_connection(const Connection& connection, InstallResult& result) const;
  bool check_translation(const netlink::ConntrackEntry& entry, InstallResult& result) const;

  // Works on distinct keys.
  Result<void> run(std::vector<Work>& works);
  void plan(Work& work, const std::optional<netlink::ConntrackEntry>& current);
  void create(Work& work);
  void replace(Work& work, const netlink::ConntrackEntry& blocking, InstallOutcome success);
  void request(Work& work, netlink::ConntrackOperation operation, const netlink::ConntrackEntry& entry);
  // Sends what is planned; returns the works whose key or reply tuple turned out to be taken.
  Result<std::vector<Work*>> send(std::vector<Work>& works);
  Result<void> resolve(const std::vector<Work*>& blocked);
  void finish(Work& work, int error);
  bool may_create(const Work& work);

  // installer_windows.cpp
  std::string why_liberal(const Connection& connection) const;  // empty: it is exact
  // Those whose entries stand here as asked, but for windows that can be advanced: the kernel need not be asked.
  Result<void> advance_known(std::vector<Work>& works);
  Result<void> read_standing(std::vector<Work>& works,
                             const std::vector<std::optional<netlink::ConntrackEntry>>& current);
  // What is sent before the windows are written: writing must not change what the entry is.
  netlink::ConntrackEntry form_to_write(const Work& work) const;
  void update(Work& work, const netlink::ConntrackEntry& current);
  Result<void> write_windows(std::vector<Work>& works);
  void judge(Work& work, const std::optional<windows::TcpWindow>& found, std::vector<netlink::ConntrackRequest>& loose);

  netlink::ConntrackTable& table_;
  const ConnectionTrackingConfig& config_;
  const WindowAccess& access_;
  Ledger& ledger_;
  const Scope& scope_;
  std::string context_;
  const Zones& zones_;
  const ScopeMatch& match_;
  Instant now_;
  std::vector<netlink::ConntrackRequest> requests_;
  std::size_t planned_ = 0;  // creations in requests_
};

}  // namespace sami::state::connection_tracking
