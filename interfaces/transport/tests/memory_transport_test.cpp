// What only the twin in memory does: cutting links, taken targets.
#include "interfaces/transport/memory_transport.h"

#include <gmock/gmock.h>

#include "interfaces/transport/tests/world.h"

namespace sami::transport::testing {
namespace {

TEST(MemoryNetworkTest, CutPeerComesBackOnlyWhenJoined) {
  Loop loop;
  MemoryNetwork network(loop);
  Master master;
  const auto server = network.serve("som1:7500", {domain, "som", "som1"}, master.handlers(), {});
  ASSERT_TRUE(server);
  AgentDialler dialler;
  const auto client = network.make_agent_client("som1:7500", soa("fw1"), "som1", {});
  client->start(dialler.handlers<AgentClient>());
  ASSERT_TRUE(loop.run_until([&] { return dialler.connected == 1; }, patience));
  network.cut("fw1");
  ASSERT_TRUE(loop.run_until([&] { return dialler.disconnected.size() >= 3 && master.closed.size() == 1; }, patience));
  EXPECT_EQ(dialler.connected, 1);
  network.join("fw1");
  EXPECT_TRUE(loop.run_until([&] { return dialler.connected == 2; }, patience));
}

TEST(MemoryNetworkTest, OneServerPerTarget) {
  Loop loop;
  MemoryNetwork network(loop);
  Master master;
  const auto first = network.serve("som1:7500", {domain, "som", "som1"}, master.handlers(), {});
  ASSERT_TRUE(first);
  const auto second = network.serve("som1:7500", {domain, "som", "som2"}, master.handlers(), {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, ErrorKind::InvalidInput);
}

}  // namespace
}  // namespace sami::transport::testing
