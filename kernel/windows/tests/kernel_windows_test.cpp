// What only the kernel twin has: packets. A TCP connection over the loopback device plays the traffic.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>

#include "kernel/netlink/tests/network_namespace.h"
#include "kernel/windows/kernel_windows.h"
#include "kernel/windows/tests/examples.h"
#include "kernel/windows/tests/loopback.h"

namespace sami::windows::test {
namespace {

using netlink::ConntrackEntry;

class KernelWindowsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!here_.usable()) GTEST_SKIP() << here_.reason();
    set_up_loopback();
    auto opened = netlink::open_kernel_conntrack();
    ASSERT_TRUE(opened) << opened.error().message;
    conntrack_ = std::move(*opened);
    kernel_ = open_kernel_windows();
    if (const auto can = kernel_.windows->available(); !can) GTEST_SKIP() << can.error().message;
  }
  ConntrackEntry only_entry() {
    std::vector<ConntrackEntry> entries;
    netlink::ConntrackFilter filter;
    filter.family = AF_INET;
    EXPECT_TRUE(conntrack_->table().dump(filter, [&](const ConntrackEntry& entry) { entries.push_back(entry); }));
    EXPECT_EQ(entries.size(), 1U);
    return entries.empty() ? ConntrackEntry{} : entries[0];
  }

  netlink::test::NetworkNamespace here_;
  std::unique_ptr<netlink::Conntrack> conntrack_;
  KernelWindows kernel_;
  const Place place_{0, netlink::parse_address("127.0.0.1").value()};
};

TEST_F(KernelWindowsTest, ReadsWhatTheConnectionDoes) {
  LoopbackConnection connection;
  const auto key = key_of(only_entry());
  const auto before = kernel_.windows->read({key}).value().at(0);
  ASSERT_TRUE(before);
  EXPECT_TRUE(is_exact(*before)) << text(*before);
  connection.send(1000);
  const auto then = kernel_.windows->read({key}).value().at(0);
  ASSERT_TRUE(then);
  EXPECT_EQ(then->original.end - before->original.end, 1000U);
}

TEST_F(KernelWindowsTest, BarrierDropsAndTheKernelLowersIt) {
  LoopbackConnection connection;
  ASSERT_TRUE(kernel_.barrier->raise({place_}, std::chrono::milliseconds(60'000)));
  connection.send(10);
  EXPECT_FALSE(connection.arrives(10, std::chrono::milliseconds(300)));
  ASSERT_TRUE(kernel_.barrier->raise({place_}, std::chrono::milliseconds(100)));
  EXPECT_TRUE(connection.arrives(10, std::chrono::seconds(10))) << "the timeout of the second raise counts";
  ASSERT_TRUE(kernel_.barrier->raise({place_}, std::chrono::milliseconds(60'000)));
  connection.send(10);
  ASSERT_TRUE(kernel_.barrier->lower({place_}));
  EXPECT_TRUE(connection.arrives(20, std::chrono::seconds(10)));
}

TEST_F(KernelWindowsTest, BarrierEndsWithItsProcess) {
  LoopbackConnection connection;
  ASSERT_TRUE(kernel_.barrier->raise({place_}, std::chrono::milliseconds(60'000)));
  kernel_ = {};
  connection.send(10);
  EXPECT_TRUE(connection.arrives(10, std::chrono::seconds(10)));
}

TEST_F(KernelWindowsTest, BarrierIsForOneZone) {
  LoopbackConnection connection;
  ASSERT_TRUE(kernel_.barrier->raise({{7, place_.address}}, std::chrono::milliseconds(60'000)));
  connection.send(10);
  EXPECT_TRUE(connection.arrives(10, std::chrono::seconds(10)));
}

TEST_F(KernelWindowsTest, TrackerNamesWhatHadAPacket) {
  if (const auto can = kernel_.tracker->available(); !can) GTEST_SKIP() << can.error().message;
  LoopbackConnection connection;
  const auto entry = only_entry();
  EXPECT_TRUE(kernel_.tracker->take().value().connections.empty()) << "nothing is watched";
  ASSERT_TRUE(kernel_.tracker->watch({{7, place_.address}}));
  connection.send(10);
  EXPECT_TRUE(kernel_.tracker->take().value().connections.empty()) << "another zone";
  ASSERT_TRUE(kernel_.tracker->watch({place_}));
  EXPECT_TRUE(kernel_.tracker->take().value().connections.empty());
  connection.send(10);
  ASSERT_TRUE(connection.arrives(20, std::chrono::seconds(10)));
  const auto taken = kernel_.tracker->take().value();
  ASSERT_EQ(taken.connections.size(), 1U);
  EXPECT_EQ(taken.connections[0].key, key_of(entry));
  EXPECT_EQ(taken.connections[0].reply, entry.reply);
  EXPECT_FALSE(taken.overrun);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(kernel_.tracker->take().value().connections.empty());
  RecordProperty(
      "empty_take_us",
      static_cast<int>(
          std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start).count()));
  ASSERT_TRUE(kernel_.tracker->watch({}, true));
  connection.send(10);
  EXPECT_EQ(kernel_.tracker->take().value().connections.size(), 1U);
  ASSERT_TRUE(kernel_.tracker->watch({}));
  connection.send(10);
  EXPECT_TRUE(kernel_.tracker->take().value().connections.empty());
}

}  // namespace
}  // namespace sami::windows::test
