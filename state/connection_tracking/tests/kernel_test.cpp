// The driver over the kernel: what is exported at one place is in place at the other, digests equal.
#include <linux/netfilter/nf_conntrack_tcp.h>

#include "kernel/netlink/tests/network_namespace.h"
#include "state/connection_tracking/tests/fixture.h"

namespace sami::state::connection_tracking::test {
namespace {

// Source and destination are two zones of one namespace: contexts "old" and "new".
class OverKernel : public testing::Test {
 protected:
  void SetUp() override {
    if (!here.usable()) GTEST_SKIP() << here.reason();
    auto opened = netlink::open_kernel_conntrack();
    ASSERT_TRUE(opened) << opened.error().message;
    conntrack = std::move(*opened);
    auto config = config_with_zone(0);
    config.contexts = {{"old", {{"blue", 1}}}, {"new", {{"blue", 2}}}};
    driver = make_connection_tracking_driver(*conntrack, config);
    old_scope.context = "old";
    new_scope.context = "new";
  }
  void make(ConntrackEntry entry) {
    entry.zone = 1;
    ASSERT_EQ(conntrack->table().apply({{ConntrackOperation::Create, entry}}).value(), std::vector<int>{0});
  }

  netlink::test::NetworkNamespace here;
  std::unique_ptr<netlink::Conntrack> conntrack;
  std::unique_ptr<Driver> driver;
  Scope old_scope = scope_of_vm1(), new_scope = scope_of_vm1();
};

TEST_F(OverKernel, MovesEveryKindOfConnection) {
  ConntrackEntry half_open = tcp("10.0.0.1", 40001, "198.51.100.7", 443);
  half_open.status = IPS_CONFIRMED;
  half_open.tcp = ConntrackTcp{TCP_CONNTRACK_SYN_SENT, 7, 7, 0x0b, 0x01};
  ConntrackEntry translated = tcp("10.0.0.1", 40002, "198.51.100.7", 443);
  translated.reply = tuple(IPPROTO_TCP, "198.51.100.7", 443, "192.0.2.1", 20001);
  ConntrackEntry called = udp("198.51.100.7", 5000, "192.0.2.1", 80);
  called.reply = tuple(IPPROTO_UDP, "10.0.0.1", 8080, "198.51.100.7", 5000);
  ConntrackEntry marked = tcp("10.0.0.1", 40000, "198.51.100.7", 443);
  marked.mark = 77;
  for (const auto& entry : {half_open, translated, called, marked}) make(entry);
  make(tcp("10.0.0.2", 1, "198.51.100.7", 443));

  const auto records = driver->snapshot(old_scope);
  ASSERT_TRUE(records) << records.error().message;
  ASSERT_EQ(records->size(), 4U);
  std::vector<InstallItem> items;
  for (const auto& each : *records) items.push_back({each});
  const auto results = driver->install(new_scope, items);
  ASSERT_TRUE(results) << results.error().message;
  for (const auto& result : *results) EXPECT_EQ(result.outcome, InstallOutcome::Installed) << result.detail;
  const auto read = driver->read(new_scope, keys(*records));
  ASSERT_TRUE(read) << read.error().message;
  for (std::size_t i = 0; i < records->size(); ++i) {
    EXPECT_EQ(read->at(i).digest, records->at(i).digest);
    EXPECT_EQ(results->at(i).digest, records->at(i).digest);
  }
  ASSERT_TRUE(driver->settle(new_scope, keys(*records)));
  EXPECT_EQ(driver->sweep(old_scope).value_or(0), 4U);
  EXPECT_EQ(conntrack->table().count().value_or(0), 5U);
  EXPECT_EQ(driver->remove(new_scope, keys(*records)).value_or(0), 4U);
  EXPECT_EQ(conntrack->table().count().value_or(0), 1U);
}

TEST_F(OverKernel, FollowsChanges) {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "198.51.100.7", 443);
  make(entry);
  ASSERT_TRUE(driver->follow(old_scope));
  entry.zone = 1;
  entry.tcp->state = TCP_CONNTRACK_FIN_WAIT;
  make(tcp("10.0.0.2", 1, "198.51.100.7", 443));
  ASSERT_TRUE(conntrack->table().apply({{ConntrackOperation::Update, entry}}));
  const auto changes = driver->changes(old_scope);
  ASSERT_TRUE(changes);
  EXPECT_THAT(changes->keys, ElementsAre(key(entry)));
  EXPECT_FALSE(changes->overrun);
}

}  // namespace
}  // namespace sami::state::connection_tracking::test
