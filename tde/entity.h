// The shell of the gate machine (protocol/machine.h): one Topology Discovery Entity. It keeps places and open moves in
// the journal, answers what needs the topology, and speaks to hypervisors through notify(), moves() and watch().
//
// A step is journaled in one durable transaction before anything else happens. When that fails the step is discarded,
// the connection dropped and the machine built again from the journal, with backoff; until then notify() answers Retry.
// From the second failure on a machine that writes nothing says what a paused VM may do (JournalUnavailable).
//
// Threading: everything on the owner's loop. Only the journal blocks.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "interfaces/transport/transport.h"
#include "protocol/gate.h"
#include "runtime/audit.h"
#include "runtime/clock.h"
#include "runtime/journal.h"
#include "runtime/log.h"
#include "runtime/loop.h"
#include "runtime/result.h"
#include "tde/topology.h"

namespace sami::tde {

struct EntityConfig {
  std::string name;
  protocol::GateConfig gate;
  Duration find_out_deadline = std::chrono::seconds(5);   // then the place of the VM counts as unknown
  Duration rebuild_delay = std::chrono::milliseconds(100);
  Duration maximum_rebuild_delay = std::chrono::seconds(1);
};

// What the entity stands on. All outlive it.
struct EntityPorts {
  Loop& loop;
  const Clock& clock;
  Journal& journal;
  Audit& audit;
  transport::TdeClient& client;
  Log log;
};

struct Notification {
  if_m_t::v1::Phase phase = if_m_t::v1::PHASE_UNSPECIFIED;
  std::string subject_id;
  std::string destination_place;               // of ANNOUNCED, MOVED, PATH_FAILED
  std::string notification_id;                 // of the other phases; empty: the subject's only open move
  common::Cause cause = common::CAUSE_UNSPECIFIED;
  bool force = false;
  std::string actor;
};

struct MoveStatus {
  std::string notification_id, migration_id, subject_id, source_place, destination_place;
  std::string state;                           // the gate's, then "Ended"
  std::string instruction;                     // newest to the hypervisor
  std::string detail;
  bool ended = false;
  bool operator==(const MoveStatus&) const = default;
};

class Entity {
 public:
  Entity(EntityConfig config, Topology topology, EntityPorts ports);
  ~Entity();

  void start();

  // Returns the notification's id once it is durable; saying the same again is harmless. Errors: InvalidInput (names),
  // Failed (it contradicts what is known: another move is open, the VM is there already, no such move), Retry.
  Result<std::string> notify(const Notification& notification);

  std::vector<MoveStatus> moves() const;       // open ones
  // Of open moves, and the last that ended. Calls watcher now and at every change, last with ended set. It ends when
  // the returned handle is destroyed.
  using Watcher = std::function<void(const MoveStatus&)>;
  Result<std::shared_ptr<void>> watch(const std::string& notification_id, Watcher watcher);

  struct Outlook {
    std::string source_place;
    Plan plan;                                 // empty without a destination
    std::vector<std::string> lines;
  };
  // Where a subject is and what a move to destination_place would mean; both may be empty. Error: InvalidInput.
  Result<Outlook> outlook(const std::string& subject_id, const std::string& destination_place) const;

  struct Status {
    bool connected = false;                    // authorized by the SOM
    std::string last_error;
    std::vector<std::string> lines;
    std::map<std::string, std::uint64_t> counters;
  };
  Status status() const;
  const std::map<std::string, std::string>& places() const { return places_; }

 private:
  struct Known {
    MoveStatus status;
    common::Outcome outcome = common::OUTCOME_UNSPECIFIED;
    std::vector<std::weak_ptr<Watcher>> watchers;
    Instant find_out_until = Instant::never();
  };

  void rebuild();
  void fail(const Error& error);
  void tick();
  void arm();
  bool apply(protocol::GateEvent event, std::vector<JournalWrite> also = {});
  std::vector<JournalWrite> changed_places() const;
  void take(const if_m_t::v1::MasterMessage& message);
  void answer(const if_m_t::v1::PathQuery& query);
  void answer(const if_m_t::v1::MoveRequest& request);
  void audit(const std::vector<protocol::AuditEntry>& entries);
  void send_inventory();
  void instruct(const protocol::HypervisorInstruction& instruction);
  void refresh();
  void publish(Known& known);
  Result<std::string> begin(const Notification& notification);
  Result<std::string> report(const Notification& notification);
  const MoveStatus* move_of(const std::string& subject_id, bool decided) const;
  std::string place_of(const std::string& subject_id) const;

  static constexpr std::string_view kCounterKey = "tde/next_notification";

  EntityConfig config_;
  Topology topology_;
  EntityPorts ports_;
  std::optional<protocol::Gate> gate_;         // nothing while the journal cannot be written
  std::optional<protocol::Gate> emergency_;    // what the journal held when it failed again; never journals
  std::uint32_t failures_ = 0;                 // of the journal, in a row
  std::map<std::string, std::string> places_;  // subject -> server
  std::uint64_t next_notification_ = 1;
  std::map<std::string, Known> moves_;         // by notification id
  std::deque<std::string> ended_;              // oldest first
  bool connected_ = false;
  bool authorized_ = false;
  Instant rebuild_at_ = Instant::never();
  Loop::TimerId timer_ = 0;
  std::string last_error_;
  std::map<std::string, std::uint64_t> counters_;
};

}  // namespace sami::tde
