// The transition table of ARCHITECTURE.md "SOM: one migration", as data.
#include <algorithm>
#include <array>

#include "protocol/som.h"

namespace sami::protocol {

namespace {

using State = journal::MigrationState;
struct Row {
  State from;
  std::array<State, 5> to;  // unused places are unspecified
};

constexpr State none = journal::MIGRATION_STATE_UNSPECIFIED;
constexpr std::array<Row, 9> table{{
    {journal::PLANNED, {journal::PREPARING, journal::SWITCHING, journal::ROLLING_BACK, journal::IN_DOUBT, none}},
    {journal::PREPARING, {journal::PRECOPY, journal::SWITCHING, journal::ROLLING_BACK, journal::IN_DOUBT, none}},
    {journal::PRECOPY, {journal::STANDBY, journal::SWITCHING, journal::ROLLING_BACK, journal::IN_DOUBT, none}},
    {journal::STANDBY, {journal::SWITCHING, journal::ROLLING_BACK, journal::IN_DOUBT, none, none}},
    {journal::SWITCHING, {journal::READY, journal::RELEASING, journal::ROLLING_BACK, journal::IN_DOUBT, none}},
    {journal::READY, {journal::RELEASING, journal::ROLLING_BACK, journal::IN_DOUBT, none, none}},
    {journal::RELEASING, {journal::DONE, journal::DONE_WITH_LOSS, none, none, none}},
    {journal::ROLLING_BACK, {journal::ROLLED_BACK, none, none, none, none}},
    {journal::IN_DOUBT, {journal::RELEASING, journal::SWITCHING, journal::ROLLING_BACK, none, none}},
}};

}  // namespace

std::string_view to_string(journal::MigrationState state) {
  return journal::MigrationState_IsValid(state) && state != none ? std::string_view(journal::MigrationState_Name(state))
                                                                 : std::string_view("UNKNOWN");
}

bool is_final(journal::MigrationState state) {
  return state == journal::DONE || state == journal::DONE_WITH_LOSS || state == journal::ROLLED_BACK;
}

bool may_follow(journal::MigrationState from, journal::MigrationState to) {
  if (to == none) return false;
  return std::any_of(table.begin(), table.end(), [&](const Row& row) {
    return row.from == from && std::find(row.to.begin(), row.to.end(), to) != row.to.end();
  });
}

}  // namespace sami::protocol
