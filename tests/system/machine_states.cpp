#include "tests/system/machine_states.h"

#include "protocol/gate.h"
#include "protocol/journal.pb.h"
#include "protocol/soa_context.h"
#include "protocol/som.h"

namespace sami::lab {
namespace {

namespace journal = protocol::journal;
using if_m_a::v1::TransferRole;
using if_m_a::v1::TransferState;

std::vector<MachineState> som_states() {
  std::vector<MachineState> all;
  const auto* enumeration = journal::MigrationState_descriptor();
  for (int i = 0; i < enumeration->value_count(); ++i) {
    const auto state = static_cast<journal::MigrationState>(enumeration->value(i)->number());
    if (state == journal::MIGRATION_STATE_UNSPECIFIED) continue;
    all.push_back({Machine::Som, static_cast<std::uint32_t>(state), std::string(protocol::to_string(state))});
  }
  return all;
}

std::vector<TransferState> transfer_states() {
  std::vector<TransferState> all;
  const auto* enumeration = if_m_a::v1::TransferState_descriptor();
  for (int i = 0; i < enumeration->value_count(); ++i) {
    all.push_back(static_cast<TransferState>(enumeration->value(i)->number()));
  }
  return all;
}

// Those that the role's rows name, on either side.
std::vector<MachineState> soa_states(Machine machine, TransferRole role) {
  std::vector<MachineState> all;
  for (const auto state : transfer_states()) {
    bool named = false;
    for (const auto other : transfer_states()) {
      named = named || protocol::may_follow(role, state, other) || protocol::may_follow(role, other, state);
    }
    if (named) all.push_back({machine, static_cast<std::uint32_t>(state), std::string(protocol::word(state))});
  }
  return all;
}

std::vector<MachineState> gate_states() {
  std::vector<MachineState> all;
  for (std::uint32_t number = 1;; ++number) {
    const auto name = protocol::to_string(static_cast<protocol::GateState>(number));
    if (name == "unknown") return all;
    all.push_back({Machine::Gate, number, std::string(name)});
  }
}

// The state that this entry tells of the machine; nothing when it is about something else.
std::optional<std::uint32_t> state_of(Machine machine, const std::string& key, const std::string& value) {
  if (machine == Machine::Som && key.starts_with("migration/")) {
    journal::Migration migration;
    if (migration.ParseFromString(value)) return static_cast<std::uint32_t>(migration.state());
  }
  if (machine == Machine::Gate && key.starts_with("gate/")) {
    journal::GateRecord move;
    if (move.ParseFromString(value)) return move.state();
  }
  const bool source = machine == Machine::Source && key.ends_with("/source");
  const bool destination = machine == Machine::Destination && key.ends_with("/destination");
  if (key.starts_with("transfer/") && (source || destination)) {
    journal::AgentTransfer transfer;
    if (transfer.ParseFromString(value)) return static_cast<std::uint32_t>(transfer.state());
  }
  return std::nullopt;
}

}  // namespace

std::string to_string(Machine machine) {
  switch (machine) {
    case Machine::Som: return "som";
    case Machine::Source: return "source";
    case Machine::Destination: return "destination";
    case Machine::Gate: return "gate";
  }
  return "unknown";
}

std::optional<Machine> parse_machine(const std::string& name) {
  for (const auto machine : {Machine::Som, Machine::Source, Machine::Destination, Machine::Gate}) {
    if (to_string(machine) == name) return machine;
  }
  return std::nullopt;
}

std::vector<MachineState> states_of(Machine machine) {
  switch (machine) {
    case Machine::Som: return som_states();
    case Machine::Source: return soa_states(machine, if_m_a::v1::TRANSFER_ROLE_SOURCE);
    case Machine::Destination: return soa_states(machine, if_m_a::v1::TRANSFER_ROLE_DESTINATION);
    case Machine::Gate: return gate_states();
  }
  return {};
}

std::set<std::uint32_t> states_in(const JournalImage& image, Machine machine) {
  std::set<std::uint32_t> found;
  for (const auto& [key, value] : image) {
    if (const auto state = state_of(machine, key, value)) found.insert(*state);
  }
  return found;
}

}  // namespace sami::lab
