// The tables of ARCHITECTURE.md are the tables of the code.
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>

#include "protocol/gate.h"
#include "protocol/soa_context.h"
#include "protocol/som.h"

namespace sami::protocol {
namespace {

using Table = std::map<std::string, std::set<std::string>>;

// The rows below a heading: first column, and the words of the last one that are names of states of this table.
Table read_table(const std::string& heading) {
  std::ifstream file(SAMI_ARCHITECTURE);
  EXPECT_TRUE(file.good()) << SAMI_ARCHITECTURE;
  std::vector<std::vector<std::string>> rows;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("#")) inside = line == heading;
    if (!inside || !line.starts_with("| ")) continue;
    std::vector<std::string> cells;
    const std::regex separator(" *\\| *");
    for (std::sregex_token_iterator it(line.begin(), line.end(), separator, -1), end; it != end; ++it)
      cells.push_back(*it);
    if (cells.size() >= 4 && cells[1] != "state") rows.push_back(cells);
  }
  std::set<std::string> names;
  const std::regex word("[A-Za-z_]+");
  const auto words = [&](const std::string& text) {
    std::vector<std::string> found;
    for (std::sregex_iterator it(text.begin(), text.end(), word), end; it != end; ++it) found.push_back(it->str());
    return found;
  };
  for (const auto& row : rows) {
    for (const auto& name : words(row[1])) names.insert(name);
  }
  Table table;
  for (const auto& row : rows) {
    for (const auto& from : words(row[1])) {
      auto& to = table[from];
      for (const auto& name : words(row[3])) {
        if (names.contains(name)) to.insert(name);
      }
    }
  }
  return table;
}

TEST(Transitions, Som) {
  const Table table = read_table("### SOM: one migration");
  ASSERT_EQ(table.size(), 12U);
  Table code;
  for (int from = 1; from <= journal::IN_DOUBT; ++from) {
    auto& to = code[std::string(to_string(static_cast<journal::MigrationState>(from)))];
    for (int next = 1; next <= journal::IN_DOUBT; ++next) {
      if (may_follow(static_cast<journal::MigrationState>(from), static_cast<journal::MigrationState>(next)))
        to.insert(std::string(to_string(static_cast<journal::MigrationState>(next))));
    }
  }
  EXPECT_EQ(code, table);
}

TEST(Transitions, Gate) {
  const Table table = read_table("### Gate: one move");
  ASSERT_EQ(table.size(), 6U);
  Table code;
  for (std::uint32_t from = 1; from <= 6; ++from) {
    auto& to = code[std::string(to_string(static_cast<GateState>(from)))];
    for (std::uint32_t next = 1; next <= 6; ++next) {
      if (may_follow(static_cast<GateState>(from), static_cast<GateState>(next)))
        to.insert(std::string(to_string(static_cast<GateState>(next))));
    }
  }
  EXPECT_EQ(code, table);
}

void expect_allowed(const Table& table, TransferRole role) {
  for (const auto& [from, targets] : table) {
    for (const auto& to : targets) {
      if_m_a::v1::TransferState a{}, b{};
      ASSERT_TRUE(if_m_a::v1::TransferState_Parse("TRANSFER_STATE_" + from, &a)) << from;
      ASSERT_TRUE(if_m_a::v1::TransferState_Parse("TRANSFER_STATE_" + to, &b)) << to;
      EXPECT_TRUE(may_follow(role, a, b)) << from << " -> " << to;
    }
  }
}

TEST(Transitions, SoaSource) {
  expect_allowed(read_table("### SOA: one transfer, as source"), if_m_a::v1::TRANSFER_ROLE_SOURCE);
}
TEST(Transitions, SoaDestination) {
  expect_allowed(read_table("### SOA: one transfer, as destination"), if_m_a::v1::TRANSFER_ROLE_DESTINATION);
}

}  // namespace
}  // namespace sami::protocol
