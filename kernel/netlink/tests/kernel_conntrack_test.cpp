// What only the real twin has: the namespace, the sysctl.
#include <gtest/gtest.h>

#include <fstream>

#include "kernel/netlink/tests/entries.h"
#include "kernel/netlink/tests/network_namespace.h"

namespace sami::netlink::test {
namespace {

constexpr const char* kSysctl = "/proc/sys/net/netfilter/nf_conntrack_events";

int events_sysctl() {
  int value = -1;
  std::ifstream(kSysctl) >> value;
  return value;
}

TEST(KernelConntrack, EnablesEventsAndRemembersWhoWasThereBefore) {
  NetworkNamespace here;
  if (!here.usable()) GTEST_SKIP() << here.reason();
  const ConntrackEntry old = udp("10.0.0.1", 1, "10.9.0.1", 53), young = udp("10.0.0.1", 2, "10.9.0.1", 53);
  {
    auto first = open_kernel_conntrack();
    ASSERT_TRUE(first) << first.error().message;
    std::ofstream(kSysctl) << 0;
    ASSERT_EQ((*first)->table().apply({{ConntrackOperation::Create, old}}).value_or(std::vector<int>{-1}),
              std::vector<int>{0});
  }
  auto conntrack = open_kernel_conntrack();
  ASSERT_TRUE(conntrack) << conntrack.error().message;
  EXPECT_EQ(events_sysctl(), 1);
  EXPECT_TRUE((*conntrack)->has_silent());
  EXPECT_TRUE((*conntrack)->is_silent(key_of(old)));
  EXPECT_FALSE((*conntrack)->is_silent(key_of(young)));

  auto events = (*conntrack)->subscribe();
  ASSERT_TRUE(events) << events.error().message;
  auto& table = (*conntrack)->table();
  ConntrackEntry gone = table.get({key_of(old)})->at(0).value();
  ASSERT_EQ(table.apply({{ConntrackOperation::Create, young}, {ConntrackOperation::Delete, gone}})
                .value_or(std::vector<int>{}),
            (std::vector<int>{0, 0}));
  const auto seen = (*events)->drain();
  ASSERT_TRUE(seen) << seen.error().message;
  ASSERT_EQ(seen->size(), 1U) << "the old one says nothing, not even DESTROY";
  EXPECT_EQ(seen->at(0).key, key_of(young));

  auto again = open_kernel_conntrack();
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_FALSE((*again)->has_silent()) << "events were enabled already";
}

TEST(KernelConntrack, StaysInTheNamespaceItWasOpenedIn) {
  NetworkNamespace outer;
  if (!outer.usable()) GTEST_SKIP() << outer.reason();
  auto conntrack = open_kernel_conntrack();
  ASSERT_TRUE(conntrack) << conntrack.error().message;
  NetworkNamespace inner;
  ASSERT_TRUE(inner.usable()) << inner.reason();
  const ConntrackEntry entry = udp("10.0.0.1", 1, "10.9.0.1", 53);
  ASSERT_TRUE((*conntrack)->table().apply({{ConntrackOperation::Create, entry}}));
  EXPECT_EQ((*conntrack)->table().count().value_or(99), 1U);
  auto other = open_kernel_conntrack();
  ASSERT_TRUE(other) << other.error().message;
  EXPECT_EQ((*other)->table().count().value_or(99), 0U);
}

}  // namespace
}  // namespace sami::netlink::test
