// The contract of a state driver: the only way SAMI touches a State Host's state.
//
// One driver serves one state class on one State Host. The agent calls it from one thread, one call at a time, in the
// order in which its machine issued them; a call may block (netlink, a file, a socket) but must end within the
// driver's own deadline (10 s unless a method says otherwise). Every call is idempotent: the agent repeats calls after
// a crash. A driver keeps nothing durable; the agent's journal does.
//
// A *scope* selects the records of one transfer: those of the subject, in the context, whose peer the selector takes.
// A *key* is an opaque, class-defined name, unique within scope and class. A *body* is the canonical record (protobuf,
// state/<class>/<class>.proto). A *digest* covers the body except timers and counters, so that it is equal on both
// hosts; equal digests mean the record is in place.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "interfaces/common/common.pb.h"
#include "runtime/result.h"

namespace sami::state {

namespace common = ::sami::common::v1;

using Key = std::string;
using Digest = std::uint64_t;

struct Record {
  Key key;
  std::string body;   // canonical record; empty when gone
  bool gone = false;  // asked for by key and not there (read), or ended at the source (install)
  Digest digest = 0;  // of body, set by the driver; 0 when gone
};

// Which records a call is about. Addresses are the subject's within its VNs.
struct Scope {
  std::string migration_id;
  std::uint32_t transfer = 0;
  std::uint64_t epoch = 0;
  common::Subject subject;
  common::PeerSelector peers;
  std::string context;  // of this host; "" is "default"
  common::ConflictRule conflict_rule = common::CONFLICT_RULE_PLANNED;
};

// What a destination found when it was asked to get ready.
struct Preparation {
  bool accepted = false;
  std::vector<common::Finding> findings;  // why not, or what is reduced
  std::vector<Key> present;               // keys of the scope that stand here already: never deleted by a rollback
};

// Everything a follower knows since the last call.
struct Changes {
  std::vector<Key> keys;  // created, altered or ended; each once
  bool overrun = false;   // events were lost: only a new snapshot is true (ENOBUFS)
};

enum class InstallOutcome {
  Installed,  // new here, and ours
  Updated,    // stood here as ours, and was brought up to date
  Removed,    // gone: deleted, or was not there
  Adopted,    // stood here before with the same identity (key and translation): left alone, not ours
  Replaced,   // MOVED only: a younger entry had to give way; ours now
  Conflict,   // a different one stands here
  Foreign,    // not the subject's, or the selector does not take it
  Malformed,
  NoCapacity,
  MissingExternalAddress,
  SharedExternalAddress,
  Unsupported,
  Failed,
};
std::string_view to_string(InstallOutcome outcome);
// Installed, Updated, Removed, Adopted, Replaced.
bool succeeded(InstallOutcome outcome);
// The finding that reports a failed outcome.
common::FindingCode finding_code(InstallOutcome outcome);

struct InstallItem {
  Record record;                // digest unset: the driver computes it
  bool ours = false;            // this migration installed it earlier: update or delete it
  bool only_if_absent = false;  // whatever stands under the key is left alone and counts as Adopted
};
struct InstallResult {
  Key key;
  InstallOutcome outcome = InstallOutcome::Failed;
  Digest digest = 0;  // of the body that was asked for; 0 when gone
  Digest expected =
      0;  // what reading it back must show where that differs (the driver cannot carry all of it); 0: digest
  bool reduced = false;  // in place, but with reduced fidelity; detail says how
  std::string detail;    // for failures and reductions
};

// What the driver says of itself; goes into the registration.
struct DriverProfile {
  std::string state_class;
  std::string representation;  // driver and version, e.g. "ctnetlink/1"
  std::uint64_t capacity = 0;
  bool needs_barrier = false;  // Finalize stops the subject's packets at the source
  bool staged = false;         // records take effect with activate(); else it is called only once the subject runs here
  std::vector<std::string> not_carried;
  std::vector<std::string> capabilities;  // "CAP_NET_ADMIN"
};

class Driver {
 public:
  virtual ~Driver() = default;
  virtual DriverProfile profile() const = 0;

  // Destination. Checks context, capacity and external addresses for the scope. Changes nothing in the kernel.
  virtual Result<Preparation> prepare(const Scope& scope) = 0;

  // Source. From the return of follow() on, every change in the scope shows in changes() until unfollow(). Following
  // twice is following once. Costs nothing while no scope is followed.
  virtual Result<void> follow(const Scope& scope) = 0;
  virtual Result<void> unfollow(const Scope& scope) = 0;
  // Keys that changed since the last call; takes all events that were queued when it was called.
  virtual Result<Changes> changes(const Scope& scope) = 0;

  // All records of the scope as they are now. May take as long as a filtered dump of the table.
  virtual Result<std::vector<Record>> snapshot(const Scope& scope) = 0;
  // The named records as they are now, in the order asked; gone is set for those that are not there.
  virtual Result<std::vector<Record>> read(const Scope& scope, const std::vector<Key>& keys) = 0;

  // Destination. Checks each record (rule 5: nothing foreign) and brings it into place; one result per item, in
  // order. A failed item leaves no trace and does not stop the others. An error of the call as a whole means that
  // any subset may have been done.
  virtual Result<std::vector<InstallResult>> install(const Scope& scope, const std::vector<InstallItem>& items) = 0;
  // Destination. Staged classes: the final round is in place and the subject does not run: the records take effect.
  // Every class: when the subject runs here, or may soon, and no final round is (scope.conflict_rule is MOVED): what
  // earlier rounds brought is all there is, and may be outdated. A later round may bring everything again.
  virtual Result<void> activate(const Scope& scope, const std::vector<Key>& keys) = 0;
  // Destination, after the outcome: what kept the records alive until now (long timeouts) gives way to normal life.
  virtual Result<void> settle(const Scope& scope, const std::vector<Key>& keys) = 0;

  // Deletes exactly these keys; those that are not there count as deleted. Returns how many were.
  virtual Result<std::uint64_t> remove(const Scope& scope, const std::vector<Key>& keys) = 0;
  // Source, after the outcome: deletes every record of the scope. Returns how many. Repeated during the grace period.
  virtual Result<std::uint64_t> sweep(const Scope& scope) = 0;

  // Source. The subject's packets are dropped while the barrier is up; it vanishes by itself after timeout.
  virtual Result<void> raise_barrier(const Scope& scope, std::uint32_t timeout_ms) = 0;
  virtual Result<void> lower_barrier(const Scope& scope) = 0;
};

}  // namespace sami::state
