// The State Orchestration Agent's machine: both roles of every transfer on one State Host.
//
// States and transitions: ARCHITECTURE.md "SOA". Pure, see machine.h. Not thread-safe; one step at a time.
#pragma once

#include <memory>
#include <variant>

#include "interfaces/if_m_a/if_m_a.pb.h"
#include "protocol/machine.h"
#include "state/driver.h"

namespace sami::protocol {

// ---- calls to drivers: carried out in order, one at a time per state class; each is answered by one DriverReply with
// ---- the same id. After a restart of the machine, replies to earlier calls are ignored by it.
namespace driver_call {
struct Prepare {};
struct Follow {};
struct Unfollow {};
struct Changes {};
struct Snapshot {};
struct Read { std::vector<state::Key> keys; };
struct Install { std::vector<state::InstallItem> items; };   // and reads back what it put in place
struct Activate { std::vector<state::Key> keys; };
struct Settle { std::vector<state::Key> keys; };
struct Remove { std::vector<state::Key> keys; };
struct Sweep {};
// What the final round needs, without a turn in between: the barrier is raised (0 ms: none is), changes() is asked, and
// what changed is read together with these keys.
struct Finalize { std::uint32_t barrier_ms = 0; std::vector<state::Key> keys; };
struct LowerBarrier {};
}  // namespace driver_call

struct DriverCall {
  std::uint64_t id = 0;
  std::string state_class;
  std::shared_ptr<const state::Scope> scope;
  std::variant<driver_call::Prepare, driver_call::Follow, driver_call::Unfollow, driver_call::Changes,
               driver_call::Snapshot, driver_call::Read, driver_call::Install, driver_call::Activate,
               driver_call::Settle, driver_call::Remove, driver_call::Sweep, driver_call::Finalize,
               driver_call::LowerBarrier>
      call;
};

// "prepare", "follow", ... as the Driver's method is called.
std::string_view to_string(const DriverCall& call);

// found: what reading back shows of each key that is now in place as it was asked for (not of adopted or deleted ones).
struct Installed { std::vector<state::InstallResult> results; std::vector<state::Record> found; };
struct Finalized { state::Changes changes; std::vector<state::Record> records; };

struct DriverReply {
  std::uint64_t id = 0;
  // What the Driver's methods returned. monostate is success without a value.
  std::variant<std::monostate, Error, state::Preparation, state::Changes, std::vector<state::Record>,
               Installed, Finalized, std::uint64_t>
      result;
};

// Carries the call out on the driver, and returns its reply. Blocks as the driver does. Used by the daemon's driver
// thread and by the simulator, so that both map calls to methods the same way.
DriverReply perform(const DriverCall& call, state::Driver& driver);

struct SoaConfig {
  std::string host;
  std::string identity;
  std::vector<std::uint32_t> protocol_versions = {1};
  std::vector<std::string> addresses;
  std::string software_version;
  std::vector<state::DriverProfile> drivers;
  if_m_a::v1::Register profile;                 // contexts, external addresses, limits; classes are filled from drivers
  std::uint32_t window = 8;                     // chunks in flight
  std::uint32_t chunk_bytes = 128 * 1024;       // at most 256 KiB
  std::uint32_t max_open_transfers = 256;
  std::uint64_t max_records_per_transfer = 1'000'000;
  std::uint32_t converged_records = 256;        // a round this small counts as converged
  std::uint32_t max_precopy_rounds = 8;         // after so many it is called converged anyway
  std::uint32_t barrier_timeout_ms = 10'000;
  std::uint32_t lease_ms = 120'000;             // of a source; a destination is told by GetReady
  Duration round_interval = std::chrono::milliseconds(100);
  Duration repeat_interval = std::chrono::milliseconds(500);
  Duration sweep_interval = std::chrono::milliseconds(200);
};

namespace soa_event {
struct Connected {};                            // a fresh stream to the SOM: authorize and register again
struct Disconnected {};
struct FromMaster { if_m_a::v1::MasterMessage message; };
struct FromDriver { DriverReply reply; };
struct Tick {};
struct JournalUnavailable {};                   // the shell's journal keeps failing: only safe effects, nothing durable
}  // namespace soa_event
using SoaEvent = std::variant<soa_event::Connected, soa_event::Disconnected, soa_event::FromMaster,
                              soa_event::FromDriver, soa_event::Tick, soa_event::JournalUnavailable>;

struct SoaStep {
  std::vector<JournalWrite> journal;
  std::vector<if_m_a::v1::AgentMessage> messages;   // to the SOM; dropped while disconnected
  std::vector<DriverCall> calls;
  std::vector<AuditEntry> audit;
};

// For `sami` and metrics.
struct TransferView {
  if_m_a::v1::TransferStatus status;
  std::uint64_t records = 0;                    // alive in this generation
  std::uint64_t installed = 0;                  // ours
  std::uint64_t adopted = 0;
  std::uint64_t resyncs = 0;
  std::uint32_t round = 0;
  bool barrier = false;
};

class Soa {
 public:
  // Starts from what the journal holds (empty: a new agent). Calls that recovery needs come with the first step.
  Soa(SoaConfig config, const JournalImage& journal);
  ~Soa();
  Soa(Soa&&) noexcept;
  Soa& operator=(Soa&&) noexcept;

  SoaStep step(Instant now, SoaEvent event);
  Instant next_deadline() const;
  bool authorized() const;
  std::vector<TransferView> transfers() const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace sami::protocol
