// What is sent for given windows, by the model of tcp_in_window; conformance_test.cpp shows that the kernel agrees.
#include <gtest/gtest.h>
#include <netinet/in.h>

#include "kernel/netlink/tests/entries.h"
#include "kernel/windows/segments.h"
#include "kernel/windows/tests/examples.h"

namespace sami::windows::test {
namespace {

TcpWindow made_by(const TcpWindow& wanted) {
  TcpWindow made;
  made.original.scale = wanted.original.scale;
  made.reply.scale = wanted.reply.scale;
  for (const auto& segment : segments_for(wanted)) EXPECT_TRUE(apply(segment, made));
  return made;
}

TEST(Segments, LeadToTheWindows) {
  for (const auto& [name, window] : examples()) {
    const TcpWindow made = made_by(window);
    EXPECT_TRUE(stands_for(made, window)) << name << "\n" << text(made) << "\n" << text(window);
    EXPECT_LE(segments_for(window).size(), 5U) << name;
  }
}

TEST(Segments, LimitsAreExactWhereTheWindowIsTheLargestThereWas) {
  for (const auto& [name, window] : examples()) {
    if (name == "shrunken window") continue;
    EXPECT_EQ(made_by(window).original.maximum_end, window.original.maximum_end) << name;
    EXPECT_EQ(made_by(window).reply.maximum_end, window.reply.maximum_end) << name;
  }
}

TEST(Segments, WhatDoesNotStandForTheWindows) {
  const TcpWindow wanted = idle();
  EXPECT_TRUE(stands_for(wanted, wanted));
  for (auto member : {&WindowDirection::end, &WindowDirection::maximum_acknowledgement}) {
    TcpWindow other = wanted;
    ++(other.reply.*member);
    EXPECT_FALSE(stands_for(other, wanted));
  }
  TcpWindow smaller = wanted;
  --smaller.original.maximum_end;
  EXPECT_FALSE(stands_for(smaller, wanted));
  TcpWindow larger = wanted;
  larger.original.maximum_end += 1U << 30;
  EXPECT_FALSE(stands_for(larger, wanted));
  TcpWindow liberal = wanted;
  liberal.reply.flags |= IP_CT_TCP_FLAG_BE_LIBERAL;
  EXPECT_FALSE(stands_for(liberal, wanted));
  EXPECT_FALSE(is_exact(liberal));
  EXPECT_FALSE(is_exact(TcpWindow{}));
}

TEST(Segments, NoReceiverAcceptsThem) {
  const auto tuple = netlink::test::tuple(IPPROTO_TCP, "10.0.0.1", 40000, "10.9.0.1", 80);
  const auto packet = packet_of({false, false, 100, 200, 300}, tuple);
  ASSERT_EQ(packet.size(), 40U);
  EXPECT_EQ(packet[8], 1) << "time to live";
  std::uint32_t sum = IPPROTO_TCP + 20;
  for (std::size_t i = 12; i < 40; i += 2) sum += static_cast<std::uint32_t>(packet[i] << 8 | packet[i + 1]);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  EXPECT_NE(sum, 0xffffU) << "the checksum must be wrong";
}

}  // namespace
}  // namespace sami::windows::test
