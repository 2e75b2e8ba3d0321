// What both twins of TcpWindows and Barrier do. The kernel's is the proof that the model in segments.cpp is right.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <chrono>

#include "kernel/netlink/tests/entries.h"
#include "kernel/netlink/tests/network_namespace.h"
#include "kernel/windows/kernel_windows.h"
#include "kernel/windows/memory_windows.h"
#include "kernel/windows/tests/examples.h"
#include "kernel/windows/tests/loopback.h"

namespace sami::windows::test {
namespace {

using netlink::ConntrackEntry;
using netlink::ConntrackOperation;
using netlink::ConntrackTcp;
using netlink::key_of;
using netlink::test::tcp;
using netlink::test::tuple;

constexpr std::uint8_t kLiberal = IP_CT_TCP_FLAG_BE_LIBERAL;

enum class Twin { Kernel, Memory };

class WindowsConformance : public testing::TestWithParam<Twin> {
 protected:
  void SetUp() override {
    if (GetParam() == Twin::Memory) {
      auto memory = netlink::make_memory_conntrack();
      auto twin = make_memory_windows(*memory);
      windows_ = twin.get();
      barrier_ = twin.get();
      memory_ = std::move(twin);
      conntrack_ = std::move(memory);
      return;
    }
    namespace_.emplace();
    if (!namespace_->usable()) GTEST_SKIP() << namespace_->reason();
    set_up_loopback();
    auto opened = netlink::open_kernel_conntrack();
    ASSERT_TRUE(opened) << opened.error().message;
    conntrack_ = std::move(*opened);
    kernel_ = open_kernel_windows();
    if (const auto can = kernel_.windows->available(); !can) GTEST_SKIP() << can.error().message;
    windows_ = kernel_.windows.get();
    barrier_ = kernel_.barrier.get();
  }

  // Imports it the way a destination does: liberal and without windows.
  void import(ConntrackEntry entry) {
    entry.tcp->flags_original |= kLiberal;
    entry.tcp->flags_reply |= kLiberal;
    ASSERT_EQ(conntrack_->table().apply({{ConntrackOperation::Create, entry}}).value_or(std::vector<int>{-1}),
              std::vector<int>{0});
  }
  void write(const ConntrackEntry& entry, const TcpWindow& window) {
    const auto written = windows_->write({{entry.original, entry.reply, entry.zone, window}});
    ASSERT_TRUE(written) << written.error().message;
  }
  // Gives the entry its state, its flags (strict) and its timeout.
  void settle(const ConntrackEntry& entry) {
    ASSERT_EQ(conntrack_->table().apply({{ConntrackOperation::Update, entry}}).value_or(std::vector<int>{-1}),
              std::vector<int>{0});
  }
  std::optional<TcpWindow> read(const ConntrackEntry& entry) {
    const auto found = windows_->read({key_of(entry)});
    EXPECT_TRUE(found) << found.error().message;
    return found ? found->at(0) : std::nullopt;
  }
  void carries(const ConntrackEntry& entry, const TcpWindow& window, const std::string& name) {
    const auto found = read(entry);
    ASSERT_TRUE(found) << name;
    EXPECT_TRUE(stands_for(*found, window)) << name << "\n" << text(*found) << "\n" << text(window);
    const auto standing = conntrack_->table().get({key_of(entry)})->at(0);
    ASSERT_TRUE(standing) << name;
    EXPECT_EQ(standing->tcp->state, entry.tcp->state) << name;
    EXPECT_EQ(standing->status & netlink::kImportableStatus, entry.status) << name;
    EXPECT_EQ((standing->tcp->flags_original | standing->tcp->flags_reply) & kLiberal, 0) << name;
    EXPECT_LE(standing->timeout, entry.timeout) << name;
    EXPECT_GE(standing->timeout + 5, entry.timeout) << name;
  }
  void moves(const ConntrackEntry& entry, const TcpWindow& window, const std::string& name = "") {
    import(entry);
    write(entry, window);
    settle(entry);
    carries(entry, window, name);
  }

  std::optional<netlink::test::NetworkNamespace> namespace_;
  std::unique_ptr<netlink::Conntrack> conntrack_;
  std::unique_ptr<MemoryWindows> memory_;
  KernelWindows kernel_;
  TcpWindows* windows_ = nullptr;
  Barrier* barrier_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Twins, WindowsConformance, testing::Values(Twin::Memory, Twin::Kernel),
                         [](const auto& twin) { return twin.param == Twin::Kernel ? "kernel" : "memory"; });

TEST_P(WindowsConformance, WritesWhatItReads) {
  std::uint16_t port = 1;
  for (const auto& [name, window] : examples()) moves(tcp("10.0.0.1", port++, "10.9.0.1", 80), window, name);
}

TEST_P(WindowsConformance, TranslatedEntries) {
  ConntrackEntry source = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  source.reply = tuple(IPPROTO_TCP, "10.9.0.1", 80, "192.0.2.1", 20001);
  moves(source, idle(), "SNAT");
  ConntrackEntry destination = tcp("10.9.0.1", 5000, "192.0.2.1", 80);
  destination.reply = tuple(IPPROTO_TCP, "10.0.0.1", 8080, "10.9.0.1", 5000);
  moves(destination, idle(), "DNAT");
  ConntrackEntry both = tcp("10.0.0.1", 40000, "192.0.2.8", 80);
  both.reply = tuple(IPPROTO_TCP, "10.9.0.1", 8080, "192.0.2.1", 20002);
  moves(both, idle(), "both");
}

TEST_P(WindowsConformance, ZonesAndIpv6) {
  TcpWindow other = idle();
  other.original.end += 50;
  moves(tcp("10.0.0.1", 40000, "10.9.0.1", 80, 7), idle(), "zone 7");
  moves(tcp("10.0.0.1", 40000, "10.9.0.1", 80, 8), other, "zone 8");
  moves(tcp("10.0.0.1", 40000, "10.9.0.1", 80), other, "no zone");
  moves(tcp("fd00::1", 40000, "fd09::1", 80, 7), idle(), "IPv6");
  EXPECT_EQ(read(tcp("10.0.0.1", 40000, "10.9.0.1", 80, 7))->original.end, idle().original.end);
}

TEST_P(WindowsConformance, EveryStateOfBothEnds) {
  std::uint16_t port = 1;
  for (const std::uint8_t state :
       {TCP_CONNTRACK_SYN_RECV, TCP_CONNTRACK_ESTABLISHED, TCP_CONNTRACK_FIN_WAIT, TCP_CONNTRACK_CLOSE_WAIT,
        TCP_CONNTRACK_LAST_ACK, TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE}) {
    ConntrackEntry entry = tcp("10.0.0.1", port++, "10.9.0.1", 80);
    entry.tcp->state = state;
    moves(entry, idle(), "state " + std::to_string(state));
  }
}

TEST_P(WindowsConformance, WhatIsNotAssuredStaysSo) {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  entry.status = IPS_CONFIRMED | IPS_SEEN_REPLY;
  entry.tcp->state = TCP_CONNTRACK_CLOSE_WAIT;
  import(entry);
  write(entry, idle());
  entry.tcp->state = TCP_CONNTRACK_SYN_RECV;
  settle(entry);
  carries(entry, idle(), "SYN_RECV");
}

TEST_P(WindowsConformance, HalfOpenConnection) {
  TcpWindow half;
  half.original = {1'001, 1'001, 64'240, 0, 7, 0x03};
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  entry.status = IPS_CONFIRMED;
  entry.tcp = ConntrackTcp{TCP_CONNTRACK_SYN_SENT, 7, 0, 0x03, 0x01};
  moves(entry, half);
}

TEST_P(WindowsConformance, NoWindows) {
  const ConntrackEntry absent = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  EXPECT_FALSE(read(absent));
  write(absent, idle());
  EXPECT_EQ(conntrack_->table().count().value_or(9), 0U) << "a write makes no entry";
  const ConntrackEntry udp = netlink::test::udp("10.0.0.1", 40000, "10.9.0.1", 80);
  ASSERT_TRUE(conntrack_->table().apply({{ConntrackOperation::Create, udp}}));
  EXPECT_FALSE(read(udp));
  const ConntrackEntry fresh = tcp("10.0.0.1", 2, "10.9.0.1", 80);
  import(fresh);
  ASSERT_TRUE(read(fresh));
  EXPECT_FALSE(is_exact(*read(fresh)));
  EXPECT_FALSE(windows_->read({{fresh.reply, 0}})->at(0)) << "by its reply tuple";
}

TEST_P(WindowsConformance, WindowsThatStandAreNotReplaced) {
  const ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  moves(entry, idle());
  TcpWindow earlier = idle();
  earlier.original.end -= 500;
  write(entry, earlier);
  ASSERT_TRUE(read(entry));
  EXPECT_FALSE(stands_for(*read(entry), earlier));
}

TEST_P(WindowsConformance, AdvancesTheWayPacketsDo) {
  const ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  moves(entry, idle());
  TcpWindow asked = idle();
  asked.original.end += 500;  // a request, not yet acknowledged
  TcpWindow answered = asked;
  answered.reply.maximum_acknowledgement += 500;
  answered.original.maximum_end += 500;
  answered.reply.end += 2'000;
  TcpWindow taken = answered;
  taken.original.maximum_acknowledgement += 2'000;
  taken.reply.maximum_end += 2'000;
  for (const auto& next : {asked, answered, taken}) {
    const auto standing = read(entry);
    ASSERT_TRUE(standing && can_advance(*standing, next)) << text(*standing) << "\n" << text(next);
    ASSERT_TRUE(windows_->write({{entry.original, entry.reply, entry.zone, next, standing}}));
    ASSERT_TRUE(read(entry));
    EXPECT_TRUE(stands_for(*read(entry), next)) << text(*read(entry)) << "\n" << text(next);
    EXPECT_EQ(read(entry)->original.maximum_end, next.original.maximum_end);
  }
  TcpWindow far = taken;
  far.original.end += 10'000'000;
  far.original.maximum_end += 10'000'000;
  far.reply.maximum_acknowledgement += 10'000'000;
  EXPECT_FALSE(can_advance(taken, far)) << "beyond the window: the entry is to be made anew";
  EXPECT_FALSE(can_advance(taken, idle())) << "backwards";
}

TEST_P(WindowsConformance, ManyAtOnce) {
  constexpr std::uint16_t kMany = 5'000;
  std::vector<netlink::ConntrackRequest> creations;
  std::vector<netlink::ConntrackKey> keys;
  std::vector<WindowWrite> writes;
  for (std::uint16_t i = 0; i < kMany; ++i) {
    const auto entry = tcp("10.0.0.1", static_cast<std::uint16_t>(10'000 + i), "10.9.0.1", 80);
    TcpWindow window = idle();
    window.original.end += i % 700U;
    creations.push_back({ConntrackOperation::Create, entry});
    keys.push_back(key_of(entry));
    writes.push_back({entry.original, entry.reply, 0, window});
  }
  ASSERT_TRUE(conntrack_->table().apply(creations));
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(windows_->write(writes));
  const auto written = std::chrono::steady_clock::now();
  const auto found = windows_->read(keys);
  const auto done = std::chrono::steady_clock::now();
  ASSERT_TRUE(found);
  std::size_t right = 0;
  for (std::size_t i = 0; i < kMany; ++i) right += found->at(i) && stands_for(*found->at(i), writes[i].window) ? 1 : 0;
  EXPECT_EQ(right, kMany);
  const auto each = [](auto from, auto to) {
    return static_cast<int>(std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count() / kMany);
  };
  RecordProperty("write_ns", each(start, written));
  RecordProperty("read_ns", each(written, done));
  if (GetParam() == Twin::Kernel)
    std::printf("write %d ns, read %d ns a connection\n", each(start, written), each(written, done));
}

TEST_P(WindowsConformance, BarrierGoesUpAndDown) {
  const Place four{3, netlink::parse_address("10.0.0.1").value()}, six{0, netlink::parse_address("fd00::1").value()};
  using std::chrono::seconds;
  EXPECT_TRUE(barrier_->lower({four})) << "was not up";
  EXPECT_TRUE(barrier_->raise({four, six}, seconds(10)));
  const auto again = barrier_->raise({four, six}, seconds(10));
  EXPECT_TRUE(again) << again.error().message;
  EXPECT_TRUE(barrier_->lower({four, six}));
  EXPECT_TRUE(barrier_->lower({four, six}));
}

}  // namespace
}  // namespace sami::windows::test
