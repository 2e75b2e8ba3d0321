// The driver over the kernel: what is exported at one place is in place at the other, digests equal.
#include <linux/netfilter/nf_conntrack_tcp.h>

#include "kernel/netlink/tests/network_namespace.h"
#include "kernel/windows/kernel_windows.h"
#include "kernel/windows/tests/examples.h"
#include "kernel/windows/tests/loopback.h"
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

// What MovesEveryKindOfConnection shows, with windows: every TCP state, translated, advanced, and made anew.
class WindowsOverKernel : public OverKernel {
 protected:
  void SetUp() override {
    OverKernel::SetUp();
    if (IsSkipped()) return;
    windows::test::set_up_loopback();
    kernel = windows::open_kernel_windows();
    if (const auto can = kernel.windows->available(); !can) GTEST_SKIP() << can.error().message;
    auto config = config_with_zone(0);
    config.contexts = {{"old", {{"blue", 1}}}, {"new", {{"blue", 2}}}};
    driver = make_connection_tracking_driver(*conntrack, config, system_clock(),
                                             {kernel.windows.get(), kernel.barrier.get(), kernel.tracker.get(), ""});
    entries.push_back(tcp("10.0.0.1", 1, "198.51.100.7", 443));
    entries.back().reply = tuple(IPPROTO_TCP, "198.51.100.7", 443, "192.0.2.1", 20001);
    entries.push_back(tcp("198.51.100.7", 5000, "192.0.2.1", 80));
    entries.back().reply = tuple(IPPROTO_TCP, "10.0.0.1", 8080, "198.51.100.7", 5000);
    for (const std::uint8_t state : {TCP_CONNTRACK_ESTABLISHED, TCP_CONNTRACK_FIN_WAIT, TCP_CONNTRACK_CLOSE_WAIT,
                                     TCP_CONNTRACK_LAST_ACK, TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_SYN_RECV}) {
      entries.push_back(tcp("10.0.0.1", static_cast<std::uint16_t>(10 + state), "198.51.100.7", 443));
      entries.back().tcp->state = state;
      if (state == TCP_CONNTRACK_SYN_RECV) entries.back().status = IPS_CONFIRMED | IPS_SEEN_REPLY;
    }
    for (auto& entry : entries) entry.zone = 1;
  }
  // The entries as new ones with these windows.
  void appear(const windows::TcpWindow& window) {
    std::vector<netlink::ConntrackKey> keys;
    for (const auto& entry : entries) keys.push_back(netlink::key_of(entry));
    std::vector<netlink::ConntrackRequest> requests;
    const auto standing = conntrack->table().get(keys);
    ASSERT_TRUE(standing);
    for (const auto& entry : *standing) {
      if (entry) requests.push_back({ConntrackOperation::Delete, *entry});
    }
    std::vector<netlink::ConntrackRequest> settle;
    std::vector<windows::WindowWrite> writes;
    for (auto entry : entries) {
      settle.push_back({ConntrackOperation::Update, entry});
      writes.push_back({entry.original, entry.reply, entry.zone, window});
      entry.tcp->state = TCP_CONNTRACK_CLOSE_WAIT;
      requests.push_back({ConntrackOperation::Create, entry});
    }
    EXPECT_THAT(conntrack->table().apply(requests).value(), testing::Each(0));
    ASSERT_TRUE(kernel.windows->write(writes));
    EXPECT_THAT(conntrack->table().apply(settle).value(), testing::Each(0));
  }
  void move(bool ours) {
    const auto records = driver->snapshot(old_scope);
    ASSERT_TRUE(records) << records.error().message;
    ASSERT_EQ(records->size(), entries.size());
    std::vector<InstallItem> items;
    for (const auto& each : *records) {
      EXPECT_TRUE(decode_body(each.body)->window);
      items.push_back({each, ours});
    }
    const auto results = driver->install(new_scope, items);
    ASSERT_TRUE(results) << results.error().message;
    const auto read = driver->read(new_scope, keys(*records));
    ASSERT_TRUE(read) << read.error().message;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto& result = results->at(i);
      EXPECT_EQ(result.outcome, ours ? InstallOutcome::Updated : InstallOutcome::Installed) << result.detail;
      EXPECT_FALSE(result.reduced) << result.detail;
      EXPECT_EQ(read->at(i).digest, result.expected);
      const auto sent = decode_body(records->at(i).body), found = decode_body(read->at(i).body);
      ASSERT_TRUE(sent && found && found->window);
      EXPECT_TRUE(windows::stands_for(*found->window, *sent->window));
      EXPECT_EQ(found->entry.tcp->state, sent->entry.tcp->state);
    }
  }

  windows::KernelWindows kernel;
  std::vector<ConntrackEntry> entries;
};

TEST_F(WindowsOverKernel, MoveWithTheirConnections) {
  windows::TcpWindow window = windows::test::idle();
  appear(window);
  move(false);
  move(true);
  window.original.end += 500;
  appear(window);
  move(true);
  window.original.end += 10'000'000;
  window.original.maximum_end += 10'000'000;
  window.reply.maximum_acknowledgement += 10'000'000;
  appear(window);
  move(true);
}

}  // namespace
}  // namespace sami::state::connection_tracking::test
