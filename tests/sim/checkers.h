// The nine invariants of ARCHITECTURE.md, checked at every step against the truth of the simulated world: the place of
// each VM, its own list of flows, and what was journaled before it was said. A violation throws Broken.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "protocol/soa.h"
#include "protocol/som.h"
#include "tests/sim/engine.h"
#include "tests/sim/fake_driver.h"

namespace sami::protocol {
struct GateStep;
}

namespace sami::sim {

class World;
struct Move;
struct Vm;
struct Flow;

// A State Host, and the context of it that a path crosses.
struct Hop {
  std::string host;
  std::string context;
  friend auto operator<=>(const Hop&, const Hop&) = default;
};

// The tables of one context, before a driver call.
struct Before {
  std::string context;
  Context tables;
};

class Checker {
 public:
  explicit Checker(World& world) : world_(world) {}

  // ---- what the shells report, after the journal was written
  void master_stepped(const protocol::SomStep& step);
  void agent_stepped(const std::string& host, const protocol::SoaStep& step);
  void epochs_written(const std::string& host, const std::vector<JournalWrite>& writes);
  void gate_stepped(const protocol::GateStep& step);
  void agent_sees(const std::string& host, const if_m_a::v1::MasterMessage& message);
  void gate_sees(const if_m_t::v1::MasterMessage& message);
  void operator_resolved(const std::string& migration_id);

  // ---- driver calls
  void call_begins(const std::string& host, const protocol::DriverCall& call);
  void call_ends(const std::string& host, const protocol::DriverCall& call);
  void agent_died(const std::string& host);
  std::optional<Before> before_call(const std::string& host, const protocol::DriverCall& call) const;
  void after_call(const std::string& host, const protocol::DriverCall& call, const std::optional<Before>& before,
                  const protocol::DriverReply& reply);
  void rebooted(const std::string& host);

  // ---- truth
  // The moment from which nothing may be lost: the VM was paused, or was noticed to have moved.
  void expect(const Move& move);
  bool open_migration(const std::string& subject) const;
  const std::map<std::string, protocol::journal::Migration>& migrations() const { return migrations_; }
  // What remains, in words; empty: the end is as it must be.
  std::string leftovers() const;
  std::string barriers() const;
  void at_end() const;

 private:
  struct Expectation {
    std::size_t flow = 0;
    std::uint32_t version = 0;
    std::string from_host;
    std::string from_context;
    std::string to_host;
    std::string to_context;
  };
  struct Expected {
    std::vector<Expectation> flows;
    std::uint64_t counter = 0;  // at the source, of the transfer that takes every peer
    std::string counter_host;
    std::string counter_context;
    Instant when;
  };
  using Migration = protocol::journal::Migration;

  [[noreturn]] void broken(int rule, const std::string& sentence) const;
  void migration_written(const Migration& before, const Migration& after);
  void check_outcome(const Migration& migration) const;
  void check_order(const Migration& migration) const;
  void check_left(const Hop& here, const state::Key& key, const Connection& connection,
                  const std::set<std::pair<std::string, Hop>>& holders) const;
  void check_go(const Migration& migration) const;
  void check_done(const Migration& migration) const;
  void check_sum(const Migration& migration, const Vm& vm) const;
  void check_source_is_clean(const Migration& migration, const common::v1::Transfer& transfer) const;
  void check_in_place(const Migration& migration, const std::string& when, bool exact) const;
  void check_call_epoch(const std::string& host, const protocol::DriverCall& call) const;
  void check_removals(const std::string& host, const protocol::DriverCall& call, const Before& before,
                      const Context& after) const;
  void check_installs(const std::string& host, const protocol::DriverCall& call, const Before& before,
                      const Context& after, const protocol::DriverReply& reply) const;
  void check_counters(const std::string& host, const protocol::DriverCall& call, const Before& before,
                      const Context& after, const protocol::DriverReply& reply) const;
  bool went_on(const Migration& migration) const;
  bool was_expected(const Migration& migration, const Flow& flow) const;
  bool stands_at_owner(const Migration& migration, const common::v1::Transfer& plan,
                       const Connection& connection) const;
  const Expected* expected(const Migration& migration) const;
  const Migration* find(const std::string& id) const;

  World& world_;
  std::map<std::string, Migration> migrations_;  // as journaled
  std::map<std::string, Expected> expected_;     // by notification
  std::map<std::string, std::uint64_t> epochs_;  // "host/subject" -> highest journaled
  std::map<std::string, std::string> running_;   // "host/class" -> write call in flight
  std::map<std::string, Instant> outcome_at_;    // by migration
  std::set<std::string> resolved_;               // by the operator
  std::set<std::string> rebooted_during_;        // "migration/host"
};

}  // namespace sami::sim
