// The shell of the agent machine (protocol/machine.h): the State Orchestration Agent of one State Host.
//
// A step is journaled in one durable transaction before anything else happens. When that fails the step is discarded,
// the connection dropped and the machine built again from the journal, with backoff, for as long as it takes; driver
// calls that were under way are forgotten. From the second failure on a machine that writes nothing lowers the barriers
// (JournalUnavailable). Driver calls run in order on one worker thread of its own.
//
// Threading: everything on the owner's loop; drivers are called on the worker thread only. Only the journal blocks.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "interfaces/transport/transport.h"
#include "protocol/soa.h"
#include "runtime/audit.h"
#include "runtime/clock.h"
#include "runtime/journal.h"
#include "runtime/log.h"
#include "runtime/loop.h"
#include "runtime/result.h"
#include "runtime/worker.h"
#include "state/driver.h"

namespace sami::soa {

struct AgentConfig {
  protocol::SoaConfig machine;                 // drivers are filled in by the agent
  std::size_t worker_queue = 65'536;           // driver calls that may wait
  std::uint32_t concurrent_queries = 4;        // of the master, for state
  std::size_t query_bytes = 8 << 20;           // a reply that would be longer is an error
  std::size_t remembered_subjects = 1024;      // that `sami state show` knows by name
  Duration rebuild_delay = std::chrono::milliseconds(100);
  Duration maximum_rebuild_delay = std::chrono::seconds(1);
};

// What the agent stands on. All outlive it.
struct AgentPorts {
  Loop& loop;
  const Clock& clock;
  Journal& journal;
  Audit& audit;
  transport::AgentClient& client;
  std::vector<state::Driver*> drivers;         // one per state class
  Log log;
};

class Agent {
 public:
  Agent(AgentConfig config, AgentPorts ports);
  ~Agent();
  void start();

  struct Status {
    bool connected = false;                    // authorized by the SOM
    std::string last_error;
    std::vector<std::string> lines;            // a line per transfer
    std::map<std::string, std::uint64_t> counters;
  };
  Status status() const;

  struct ClassState {
    std::string state_class;
    std::vector<if_m_a::v1::StateRecord> records;
  };
  using StateReady = std::function<void(Result<std::vector<ClassState>>)>;
  // What the host holds of a subject, by class; "" is every class. done runs on the loop, perhaps within the call.
  // Errors: InvalidInput, Retry (too busy), the driver's.
  void read_state(const common::v1::Subject& subject, const std::string& context, const std::string& state_class,
                  StateReady done);
  // By the id of a subject that the master has spoken of, or by an address (in every virtual network). Error:
  // InvalidInput.
  Result<common::v1::Subject> find_subject(const std::string& id_or_address) const;

 private:
  void rebuild();
  void fail(const Error& error);
  void tick();
  void arm();
  bool apply(protocol::SoaEvent event, std::vector<JournalWrite> also = {});
  void call(const protocol::DriverCall& call);
  void reply(std::uint64_t incarnation, protocol::DriverReply reply);
  void take(if_m_a::v1::MasterMessage message);
  void answer(const if_m_a::v1::StateQuery& query);
  void send_state(std::uint64_t query_id, const Result<std::vector<ClassState>>& found);
  std::vector<JournalWrite> remember(const if_m_a::v1::MasterMessage& message);
  void audit(const std::vector<protocol::AuditEntry>& entries);
  state::Driver* driver(const std::string& state_class) const;

  AgentConfig config_;
  AgentPorts ports_;
  std::optional<protocol::Soa> soa_;           // nothing while the journal cannot be written
  std::optional<protocol::Soa> emergency_;     // what the journal held when it failed again; never journals
  std::uint32_t failures_ = 0;                 // of the journal, in a row
  std::map<std::string, common::v1::Subject> subjects_;
  std::shared_ptr<std::atomic<std::uint64_t>> incarnation_;   // of the machine; calls of earlier ones are skipped
  bool connected_ = false;
  std::uint32_t queries_ = 0;
  Instant rebuild_at_ = Instant::never();
  Loop::TimerId timer_ = 0;
  std::string last_error_;
  std::map<std::string, std::uint64_t> counters_;
  Worker worker_;                              // last: it ends before what its jobs use
};

}  // namespace sami::soa
