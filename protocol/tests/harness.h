// One SOM, State Hosts and a gate wired directly in one thread, with drivers in memory and a clock of their own.
// Messages arrive in order and at once unless a test says otherwise. For the tests of protocol/.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "protocol/gate.h"
#include "protocol/soa.h"
#include "protocol/som.h"

namespace sami::protocol::test {

inline constexpr std::string_view class_name = "connection_tracking";

// A table of records: key -> body. A key that begins with "foreign" is not the subject's.
class MapDriver final : public state::Driver {
 public:
  std::map<std::string, std::string> table;
  std::set<std::string> changed;
  bool following = false;
  bool barrier = false;
  bool overrun = false;
  bool refuse = false;
  int barriers_raised = 0;
  int made_do = 0;
  int interruptions = 0;  // so many installs are done, and their answer is an error
  std::set<std::string> removed;

  void put(const std::string& key, const std::string& body) {
    table[key] = body;
    changed.insert(key);
  }
  void end(const std::string& key) {
    table.erase(key);
    changed.insert(key);
  }

  state::DriverProfile profile() const override {
    state::DriverProfile profile;
    profile.state_class = class_name;
    profile.representation = "map/1";
    profile.needs_barrier = true;
    return profile;
  }
  Result<state::Preparation> prepare(const state::Scope&) override {
    state::Preparation preparation;
    preparation.accepted = !refuse;
    if (refuse) {
      preparation.findings.emplace_back().set_code(common::v1::FINDING_NO_CAPACITY);
      preparation.findings[0].set_detail("full");
    }
    for (const auto& [key, body] : table) preparation.present.push_back(key);
    return preparation;
  }
  Result<void> follow(const state::Scope&) override { return following = true, Result<void>{}; }
  Result<void> unfollow(const state::Scope&) override { return following = false, Result<void>{}; }
  Result<state::Changes> changes(const state::Scope&) override {
    state::Changes news{{changed.begin(), changed.end()}, std::exchange(overrun, false)};
    changed.clear();
    return news;
  }
  Result<std::vector<state::Record>> snapshot(const state::Scope&) override {
    std::vector<state::Record> records;
    for (const auto& [key, body] : table) records.push_back({key, body, false, digest(body)});
    return records;
  }
  Result<std::vector<state::Record>> read(const state::Scope&, const std::vector<state::Key>& keys) override {
    std::vector<state::Record> records;
    for (const auto& key : keys) {
      const auto found = table.find(key);
      if (found == table.end())
        records.push_back({key, {}, true, 0});
      else
        records.push_back({key, found->second, false, digest(found->second)});
    }
    return records;
  }
  Result<std::vector<state::InstallResult>> install(const state::Scope& scope,
                                                    const std::vector<state::InstallItem>& items) override {
    std::vector<state::InstallResult> results;
    for (const auto& item : items) {
      state::InstallResult result{item.record.key, install_one(scope, item), digest(item.record.body), 0, false, {}};
      if (item.record.gone) result.digest = 0;
      results.push_back(result);
    }
    if (interruptions > 0 && interruptions-- > 0) return failure(ErrorKind::Retry, "interrupted");
    return results;
  }
  Result<void> activate(const state::Scope& scope, const std::vector<state::Key>&) override {
    made_do += scope.conflict_rule == common::v1::CONFLICT_RULE_MOVED ? 1 : 0;
    return {};
  }
  Result<void> settle(const state::Scope&, const std::vector<state::Key>&) override { return {}; }
  Result<std::uint64_t> remove(const state::Scope&, const std::vector<state::Key>& keys) override {
    std::uint64_t count = 0;
    for (const auto& key : keys) {
      removed.insert(key);
      count += table.erase(key);
    }
    return count;
  }
  Result<std::uint64_t> sweep(const state::Scope&) override {
    const std::uint64_t count = table.size();
    table.clear();
    return count;
  }
  Result<void> raise_barrier(const state::Scope&, std::uint32_t) override {
    ++barriers_raised;
    barrier = true;
    return {};
  }
  Result<void> lower_barrier(const state::Scope&) override { return barrier = false, Result<void>{}; }

 private:
  static state::Digest digest(const std::string& body) { return std::hash<std::string>{}(body) | 1U; }
  state::InstallOutcome install_one(const state::Scope& scope, const state::InstallItem& item) {
    using state::InstallOutcome;
    const auto& record = item.record;
    if (record.key.starts_with("foreign")) return InstallOutcome::Foreign;
    const auto there = table.find(record.key);
    if (record.gone) {
      if (there != table.end()) table.erase(there);
      return InstallOutcome::Removed;
    }
    if (there == table.end()) return table[record.key] = record.body, InstallOutcome::Installed;
    if (item.only_if_absent) return InstallOutcome::Adopted;
    if (item.ours) return there->second = record.body, InstallOutcome::Updated;
    if (there->second == record.body) return InstallOutcome::Adopted;
    if (scope.conflict_rule == common::v1::CONFLICT_RULE_MOVED)
      return there->second = record.body, InstallOutcome::Replaced;
    return InstallOutcome::Conflict;
  }
};

class World {
 public:
  explicit World(std::vector<std::string> hosts = {"fw1", "fw2"});

  // ---- what happens outside
  void announce(if_m_t::v1::Phase phase = if_m_t::v1::PHASE_ANNOUNCED);
  void pause() { gate(gate_event::VmPaused{"n1"}); }
  void resume_at_destination() { gate(gate_event::VmResumedAtDestination{"n1"}); }
  void resume_at_source() { gate(gate_event::VmResumedAtSource{"n1"}); }
  void restart_som();
  void restart_agent(const std::string& host);
  void restart_gate();
  void connect_agent(const std::string& host);
  void disconnect_agent(const std::string& host);
  void connect_gate();
  void disconnect_gate();

  // ---- time
  void settle();                // delivers until nothing is in flight
  void run(Duration duration);  // lets time pass, waking every machine at its deadlines
  bool run_until(const std::function<bool()>& condition, Duration limit);

  void gate(GateEvent event);
  void som(SomEvent event);
  void agent(const std::string& host, SoaEvent event);

  MapDriver& driver(const std::string& host) { return *hosts_.at(host).driver; }
  const Soa& soa(const std::string& host) const { return *hosts_.at(host).soa; }
  const Gate& gate() const { return *gate_; }
  const Som& master() const { return *som_; }
  const journal::Migration& migration() const { return *som_->migrations().back(); }
  journal::MigrationState state() const { return migration().state(); }
  bool instructed(HypervisorInstruction::Kind kind) const;
  const JournalImage& agent_journal(const std::string& host) { return hosts_.at(host).journal; }

  SomConfig som_config;
  SoaConfig agent_config;
  GateConfig gate_config;
  if_m_t::v1::Notify announcement;
  std::vector<HypervisorInstruction> instructions;
  std::vector<AuditEntry> audit;
  std::vector<OperatorReply> replies;
  // Drops messages that a test does not want to arrive.
  std::function<bool(const std::string& to, const if_m_a::v1::MasterMessage&)> lose_to_agent;
  std::function<bool(const std::string& from, const if_m_a::v1::AgentMessage&)> lose_from_agent;
  Instant now{1'000'000'000};

 private:
  struct Host {
    std::unique_ptr<MapDriver> driver;
    std::unique_ptr<Soa> soa;
    JournalImage journal;
    bool connected = false;
  };
  static void commit(JournalImage& image, const std::vector<JournalWrite>& writes);
  SoaConfig config_of(const std::string& host) const;
  void carry_out(const std::string& host, SoaStep step);
  void carry_out(SomStep step);
  void carry_out(GateStep step);
  Instant next_deadline() const;
  void tick();

  std::map<std::string, Host> hosts_;
  std::unique_ptr<Som> som_;
  JournalImage som_journal_;
  std::unique_ptr<Gate> gate_;
  JournalImage gate_journal_;
  bool gate_connected_ = false;
  struct InFlight {
    std::string party;    // an agent or the gate: its crash loses it
    bool driver = false;  // an answer of a driver: the crash of the SOM does not lose it
    std::function<void()> deliver;
  };
  std::deque<InFlight> in_flight_;
};

}  // namespace sami::protocol::test
