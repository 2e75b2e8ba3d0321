#include "protocol/tests/harness.h"

#include <gtest/gtest.h>

namespace sami::protocol::test {

World::World(std::vector<std::string> hosts) {
  som_config.identity = "spiffe://test/sami/som/som1";
  som_config.classes.emplace_back().set_state_class(std::string(class_name));
  som_config.classes[0].set_essential(true);
  som_config.grace_ms = 300;
  gate_config.identity = "spiffe://test/sami/tde/tde1";
  gate_config.subjects = {"*"};
  som_ = std::make_unique<Som>(som_config, som_journal_, now);
  for (const auto& name : hosts) hosts_[name].driver = std::make_unique<MapDriver>();
  for (const auto& name : hosts) {
    hosts_[name].soa = std::make_unique<Soa>(config_of(name), JournalImage{});
    connect_agent(name);
  }
  gate_ = std::make_unique<Gate>(gate_config, gate_journal_);
  connect_gate();
  settle();

  announcement.set_notification_id("n1");
  announcement.set_cause(common::v1::CAUSE_VM_MIGRATION);
  announcement.mutable_subject()->set_id("vm1");
  auto& nic = *announcement.mutable_subject()->add_interfaces();
  nic.set_vn_name("tenant");
  nic.add_addresses(std::string("\x0a\x00\x00\x01", 4));
  announcement.set_source_place("server1");
  announcement.set_destination_place("server2");
  for (std::size_t i = 0; i + 1 < hosts.size(); i += 2) {
    auto& transfer = *announcement.add_transfers();
    transfer.set_index(static_cast<std::uint32_t>(i / 2));
    transfer.set_source_host(hosts[i]);
    transfer.set_destination_host(hosts[i + 1]);
    transfer.set_disposition(common::v1::DISPOSITION_MOVE);
  }
}

SoaConfig World::config_of(const std::string& host) const {
  SoaConfig config = agent_config;
  config.host = host;
  config.identity = "spiffe://test/sami/soa/" + host;
  config.drivers = {hosts_.at(host).driver->profile()};
  return config;
}

void World::announce(if_m_t::v1::Phase phase) {
  announcement.set_phase(phase);
  gate(gate_event::MoveBegan{announcement});
}

void World::commit(JournalImage& image, const std::vector<JournalWrite>& writes) {
  for (const auto& write : writes) {
    if (write.value)
      image[write.key] = *write.value;
    else
      image.erase(write.key);
  }
}

void World::carry_out(const std::string& host, SoaStep step) {
  Host& its = hosts_.at(host);
  commit(its.journal, step.journal);
  audit.insert(audit.end(), step.audit.begin(), step.audit.end());
  for (auto& message : step.messages) {
    if (!its.connected || (lose_from_agent && lose_from_agent(host, message))) continue;
    in_flight_.push_back({host, false, [this, host, message] { som(som_event::FromAgent{host, message}); }});
  }
  for (auto& call : step.calls) {
    in_flight_.push_back(
        {host, true, [this, host, call] { agent(host, soa_event::FromDriver{perform(call, driver(host))}); }});
  }
}

void World::carry_out(SomStep step) {
  commit(som_journal_, step.journal);
  audit.insert(audit.end(), step.audit.begin(), step.audit.end());
  replies.insert(replies.end(), step.replies.begin(), step.replies.end());
  for (auto& [host, message] : step.to_agents) {
    if (!hosts_.contains(host) || !hosts_.at(host).connected || (lose_to_agent && lose_to_agent(host, message)))
      continue;
    in_flight_.push_back({host, false, [this, to = host, m = message] { agent(to, soa_event::FromMaster{m}); }});
  }
  for (auto& [tde, message] : step.to_tdes) {
    if (gate_connected_)
      in_flight_.push_back({"gate", false, [this, m = message] { gate(gate_event::FromMaster{m}); }});
  }
}

void World::carry_out(GateStep step) {
  commit(gate_journal_, step.journal);
  audit.insert(audit.end(), step.audit.begin(), step.audit.end());
  instructions.insert(instructions.end(), step.instructions.begin(), step.instructions.end());
  for (auto& message : step.messages) {
    if (gate_connected_)
      in_flight_.push_back({"gate", false, [this, message] { som(som_event::FromTde{"tde1", message}); }});
  }
}

void World::gate(GateEvent event) { carry_out(gate_->step(now, std::move(event))); }
void World::som(SomEvent event) { carry_out(som_->step(now, std::move(event))); }
void World::agent(const std::string& host, SoaEvent event) {
  carry_out(host, hosts_.at(host).soa->step(now, std::move(event)));
}

void World::connect_agent(const std::string& host) {
  hosts_.at(host).connected = true;
  som(som_event::AgentConnected{host});
  agent(host, soa_event::Connected{});
}
void World::disconnect_agent(const std::string& host) {
  hosts_.at(host).connected = false;
  som(som_event::AgentDisconnected{host});
  agent(host, soa_event::Disconnected{});
}
void World::connect_gate() {
  gate_connected_ = true;
  som(som_event::TdeConnected{"tde1"});
  gate(gate_event::Connected{});
}
void World::disconnect_gate() {
  gate_connected_ = false;
  som(som_event::TdeDisconnected{"tde1"});
  gate(gate_event::Disconnected{});
}

void World::restart_som() {
  som_ = std::make_unique<Som>(som_config, som_journal_, now);
  std::erase_if(in_flight_, [](const InFlight& entry) { return !entry.driver; });
  for (auto& [name, host] : hosts_) connect_agent(name);
  connect_gate();
}

void World::restart_agent(const std::string& host) {
  disconnect_agent(host);
  std::erase_if(in_flight_, [&](const InFlight& entry) { return entry.party == host; });
  hosts_.at(host).soa = std::make_unique<Soa>(config_of(host), hosts_.at(host).journal);
  connect_agent(host);
}

void World::restart_gate() {
  disconnect_gate();
  std::erase_if(in_flight_, [](const InFlight& entry) { return entry.party == "gate"; });
  gate_ = std::make_unique<Gate>(gate_config, gate_journal_);
  connect_gate();
}

void World::settle() {
  for (int steps = 0; !in_flight_.empty(); ++steps) {
    ASSERT_LT(steps, 100'000) << "messages without end";
    auto next = std::move(in_flight_.front());
    in_flight_.pop_front();
    next.deliver();
  }
}

Instant World::next_deadline() const {
  Instant next = std::min(som_->next_deadline(), gate_->next_deadline());
  for (const auto& [name, host] : hosts_) next = std::min(next, host.soa->next_deadline());
  return next;
}

void World::tick() {
  if (som_->next_deadline() <= now) {
    som(som_event::Tick{});
    ASSERT_GT(som_->next_deadline(), now) << "the SOM does not get on";
  }
  if (gate_->next_deadline() <= now) {
    gate(gate_event::Tick{});
    ASSERT_GT(gate_->next_deadline(), now) << "the gate does not get on";
  }
  for (auto& [name, host] : hosts_) {
    if (host.soa->next_deadline() > now) continue;
    agent(name, soa_event::Tick{});
    ASSERT_GT(host.soa->next_deadline(), now) << name << " does not get on";
  }
}

bool World::run_until(const std::function<bool()>& condition, Duration limit) {
  const Instant end = now + limit;
  settle();
  while (!condition()) {
    const Instant next = next_deadline();
    if (next > end) {
      now = end;
      return condition();
    }
    now = std::max(now, next);
    tick();
    settle();
    if (::testing::Test::HasFatalFailure()) return false;
  }
  return true;
}

void World::run(Duration duration) {
  run_until([] { return false; }, duration);
}

bool World::instructed(HypervisorInstruction::Kind kind) const {
  return std::any_of(instructions.begin(), instructions.end(), [&](const auto& i) { return i.kind == kind; });
}

}  // namespace sami::protocol::test
