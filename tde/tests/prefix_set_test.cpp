#include "tde/prefix_set.h"

#include <gmock/gmock.h>

#include <random>

namespace sami::tde {
namespace {

PrefixSet set_of(const std::vector<std::string>& prefixes) {
  PrefixSet set;
  for (const auto& prefix : prefixes) set = set | PrefixSet(to_message(parse_prefix(prefix).value()));
  return set;
}
std::string shown(const PrefixSet& set) { return to_string(set.selector()); }

TEST(PrefixSet, SelectorsAreShortAndExact) {
  const auto all = set_of({"0.0.0.0/0"});
  EXPECT_EQ(shown(all), "0.0.0.0/0");
  EXPECT_EQ(shown(all - set_of({"10.1.2.0/24"})), "0.0.0.0/0 except 10.1.2.0/24");
  EXPECT_EQ(shown((all - set_of({"10.1.2.0/24"})) | set_of({"10.1.2.0/24"})), "0.0.0.0/0");
  EXPECT_EQ(shown(set_of({"10.0.0.0/25", "10.0.0.128/25"})), "10.0.0.0/24");
  EXPECT_EQ(shown(set_of({"10.0.0.0/8"}) & set_of({"10.1.0.0/16", "11.0.0.0/8"})), "10.1.0.0/16");
  EXPECT_EQ(shown(set_of({"10.0.0.0/8", "fd00::/8"}) - set_of({"fd01::/16"})), "10.0.0.0/8, fd00::/8 except fd01::/16");
  EXPECT_TRUE((set_of({"10.1.0.0/16"}) - set_of({"10.0.0.0/8"})).empty());
}

// Exclusion wins over inclusion in a selector, so what is let back in below an exclusion must be spelt out.
TEST(PrefixSet, ThreeLevelsStayExact) {
  const auto set = (set_of({"0.0.0.0/0"}) - set_of({"10.0.0.0/8"})) | set_of({"10.1.0.0/16"});
  PrefixSet included, excluded;
  const auto selector = set.selector();
  for (const auto& prefix : selector.include()) included = included | PrefixSet(prefix);
  for (const auto& prefix : selector.exclude()) excluded = excluded | PrefixSet(prefix);
  const auto again = included - excluded;
  EXPECT_TRUE((again - set).empty());
  EXPECT_TRUE((set - again).empty());
  EXPECT_TRUE(set.contains(std::string("\x0a\x01\x07\x07", 4)));
  EXPECT_FALSE(set.contains(std::string("\x0a\x02\x07\x07", 4)));
}

TEST(PrefixSet, AlgebraAgreesWithMembership) {
  std::mt19937 random(7);
  const auto any = [&] {
    PrefixSet set;
    for (int i = 0; i < 6; ++i) {
      common::Prefix prefix;
      const auto length = static_cast<std::uint32_t>(random() % 9);
      prefix.set_address(std::string(1, static_cast<char>(random() & (0xff00U >> length))) + std::string(3, '\0'));
      prefix.set_length(length);
      set = random() % 3 == 0 ? set - PrefixSet(prefix) : set | PrefixSet(prefix);
    }
    return set;
  };
  for (int round = 0; round < 200; ++round) {
    const PrefixSet a = any(), b = any(), both = a & b, either = a | b, only = a - b;
    for (int octet = 0; octet < 256; ++octet) {
      const std::string address{static_cast<char>(octet), 1, 2, 3};
      const bool in_a = a.contains(address), in_b = b.contains(address);
      ASSERT_EQ(both.contains(address), in_a && in_b);
      ASSERT_EQ(either.contains(address), in_a || in_b);
      ASSERT_EQ(only.contains(address), in_a && !in_b);
    }
  }
}

}  // namespace
}  // namespace sami::tde
