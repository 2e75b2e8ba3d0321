// The states of the protocol machines as their own enumerations and transition tables have them, and what a daemon's
// journal says of the state in which it is. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/journal.h"

namespace sami::lab {

enum class Machine { Som, Source, Destination, Gate };
// "som", "source", "destination", "gate".
std::string to_string(Machine machine);
std::optional<Machine> parse_machine(const std::string& name);

struct MachineState {
  Machine machine = Machine::Som;
  std::uint32_t number = 0;  // in the machine's enumeration
  std::string name;          // "PRECOPY", "FOLLOWING", "StandingBy"
};
// Every state of the machine; a new enumerator or a new row of its table shows here by itself.
std::vector<MachineState> states_of(Machine machine);

// The states in which what the journal holds of this machine (migrations, transfers, moves) is.
std::set<std::uint32_t> states_in(const JournalImage& journal, Machine machine);

}  // namespace sami::lab
