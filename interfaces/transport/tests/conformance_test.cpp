// What every twin of the transport does.
#include <gmock/gmock.h>

#include "interfaces/transport/tests/world.h"

namespace sami::transport::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SessionTest : public ::testing::Test {
 protected:
  void serve(Limits limits = {}) { world_->serve(master_.handlers(), limits); }

  void dial(const Identity& identity = soa("fw1"), Limits limits = {}) {
    client_ = world_->agent(identity, "som1", limits);
    client_->start(dialler_.handlers<AgentClient>());
  }

  void open() {
    serve();
    dial();
    ASSERT_TRUE(until([&] { return dialler_.connected == 1 && master_.agents.size() == 1; }));
  }

  bool until(const std::function<bool()>& condition) { return world_->loop.run_until(condition, patience); }
  bool until_disconnected() {
    return until([&] { return !dialler_.disconnected.empty(); });
  }

  Master master_;
  AgentDialler dialler_;
  std::unique_ptr<World> world_ = world_kind().make();
  std::unique_ptr<AgentClient> client_;  // goes before the world
};

TEST_F(SessionTest, MasterKnowsWhoDialled) {
  open();
  EXPECT_EQ(master_.agents[0]->peer(), soa("fw1"));
  EXPECT_THAT(dialler_.disconnected, IsEmpty());
}

TEST_F(SessionTest, MessagesArriveInOrderBothWays) {
  open();
  constexpr std::uint32_t count = 500;
  for (std::uint32_t i = 0; i < count; ++i) {
    client_->send(upload(i, 100));
    master_.agents[0]->send(download(i, 100));
  }
  ASSERT_TRUE(until([&] { return master_.messages.size() == count && dialler_.messages.size() == count; }));
  for (std::uint32_t i = 0; i < count; ++i) {
    EXPECT_EQ(master_.messages[i].upload_state().transfer().transfer(), i);
    EXPECT_EQ(dialler_.messages[i].download_state().transfer().transfer(), i);
  }
}

TEST_F(SessionTest, LargeMessagesArriveWhole) {
  open();
  constexpr std::size_t size = (1 << 20) - 1000;
  for (std::uint32_t i = 0; i < 8; ++i) client_->send(upload(i, size));
  master_.agents[0]->send(download(0, size));
  ASSERT_TRUE(until([&] { return master_.messages.size() == 8 && dialler_.messages.size() == 1; }));
  EXPECT_EQ(master_.messages[7].upload_state().chunk(), std::string(size, 'u'));
  EXPECT_EQ(dialler_.messages[0].download_state().chunk(), std::string(size, 'd'));
}

TEST_F(SessionTest, TdeSpeaksItsOwnInterface) {
  serve();
  const auto tde = world_->tde({domain, "tde", "tde1"}, "som1", {});
  TdeDialler dialler;
  tde->start(dialler.handlers<TdeClient>());
  ASSERT_TRUE(until([&] { return master_.tdes.size() == 1 && dialler.connected == 1; }));
  if_m_t::v1::TdeMessage message;
  message.mutable_notify()->set_notification_id("n1");
  tde->send(message);
  if_m_t::v1::MasterMessage answer;
  answer.mutable_concluded()->set_migration_id("m1");
  master_.tdes[0]->send(answer);
  ASSERT_TRUE(until([&] { return !master_.tde_messages.empty() && !dialler.messages.empty(); }));
  EXPECT_EQ(master_.tde_messages[0].notify().notification_id(), "n1");
  EXPECT_EQ(dialler.messages[0].concluded().migration_id(), "m1");
}

TEST_F(SessionTest, CloseSendsWhatIsQueuedThenTheReason) {
  open();
  client_->send(upload(1, 10));
  ASSERT_TRUE(until([&] { return master_.messages.size() == 1; }));
  for (std::uint32_t i = 0; i < 10; ++i) master_.agents[0]->send(download(i, 1000));
  master_.agents[0]->close("protocol version 7: expected 1");
  master_.agents[0]->close("a second reason");
  ASSERT_TRUE(until([&] { return !dialler_.disconnected.empty() && !master_.closed.empty(); }));
  EXPECT_EQ(dialler_.messages.size(), 10U);
  EXPECT_EQ(dialler_.disconnected[0], "protocol version 7: expected 1");
  EXPECT_THAT(master_.closed, ElementsAre("protocol version 7: expected 1"));
  master_.agents[0]->send(download(11, 10));  // dropped
}

TEST_F(SessionTest, MasterHearsWhenThePeerGoes) {
  open();
  client_.reset();
  ASSERT_TRUE(until([&] { return !master_.closed.empty(); }));
  EXPECT_THAT(master_.closed[0], HasSubstr("peer"));
}

TEST_F(SessionTest, ReconnectClosesAndDialsAgain) {
  open();
  client_->reconnect("the journal could not be written");
  ASSERT_TRUE(until([&] { return dialler_.connected == 2 && master_.agents.size() == 2 && !master_.closed.empty(); }));
  EXPECT_THAT(dialler_.disconnected, ElementsAre("the journal could not be written"));
  client_->send(upload(5, 10));
  ASSERT_TRUE(until([&] { return master_.messages.size() == 1; }));
}

TEST_F(SessionTest, ComesBackWhenTheMasterDoes) {
  dial();
  ASSERT_TRUE(until_disconnected());
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("nobody listens"));
  serve();
  ASSERT_TRUE(until([&] { return dialler_.connected == 1; }));
  world_->stop();
  const std::size_t before = dialler_.disconnected.size();
  ASSERT_TRUE(until([&] { return dialler_.disconnected.size() > before; }));
  serve();
  ASSERT_TRUE(until([&] { return dialler_.connected == 2; }));
}

TEST_F(SessionTest, PeerThatDoesNotReadIsClosed) {
  serve({.queued_bytes = 4 << 20});
  dial();
  ASSERT_TRUE(until([&] { return dialler_.connected == 1 && master_.agents.size() == 1; }));
  const auto session = master_.agents[0];
  session->send(download(0, 1 << 19));
  ASSERT_TRUE(until([&] { return dialler_.messages.size() == 1 && session->queued_bytes() == 0; }));
  for (std::uint32_t i = 0; i < 64; ++i) session->send(download(i, 1 << 19));  // in one turn: nobody reads
  world_->loop.post([&] { EXPECT_GT(session->queued_bytes(), 0U); });
  ASSERT_TRUE(until([&] { return !master_.closed.empty() && !dialler_.disconnected.empty(); }));
  EXPECT_THAT(master_.closed[0], HasSubstr("does not read"));
  EXPECT_LT(dialler_.messages.size(), 64U);
}

TEST_F(SessionTest, MasterThatDoesNotReadIsLeft) {
  serve();
  dial(soa("fw1"), {.queued_bytes = 4 << 20});
  ASSERT_TRUE(until([&] { return dialler_.connected == 1 && master_.agents.size() == 1; }));
  for (std::uint32_t i = 0; i < 64; ++i) client_->send(upload(i, 1 << 19));
  ASSERT_TRUE(until([&] { return !master_.closed.empty() && !dialler_.disconnected.empty(); }));
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("does not read"));
}

TEST_F(SessionTest, TooLargeAMessageIsNotSent) {
  open();
  client_->send(upload(1, 2 << 20));
  ASSERT_TRUE(until_disconnected());
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("at most 1048576"));
  ASSERT_TRUE(until([&] { return master_.agents.size() == 2; }));
  master_.agents[1]->send(download(1, 2 << 20));
  ASSERT_TRUE(until([&] { return master_.closed.size() == 2; }));
  EXPECT_THAT(master_.closed[1], HasSubstr("at most 1048576"));
  EXPECT_THAT(master_.messages, IsEmpty());
  EXPECT_THAT(dialler_.messages, IsEmpty());
}

TEST_F(SessionTest, TooLargeAMessageIsNotTaken) {
  serve({.message_bytes = 1000});
  dial();
  ASSERT_TRUE(until([&] { return dialler_.connected == 1; }));
  client_->send(upload(1, 5000));
  ASSERT_TRUE(until([&] { return !dialler_.disconnected.empty() && !master_.closed.empty(); }));
  EXPECT_THAT(master_.messages, IsEmpty());
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("1000"));
}

TEST_F(SessionTest, SilentPeerIsClosed) {
  serve({.first_message = std::chrono::milliseconds(100)});
  dial();
  ASSERT_TRUE(until([&] { return !master_.closed.empty() && !dialler_.disconnected.empty(); }));
  EXPECT_THAT(master_.closed[0], HasSubstr("no message came within 100 ms"));
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("no message came within 100 ms"));
}

TEST_F(SessionTest, SessionThatHasSpokenMayFallSilent) {
  serve({.first_message = std::chrono::milliseconds(300)});
  dial();
  ASSERT_TRUE(until([&] { return dialler_.connected == 1; }));
  client_->send(upload(1, 10));
  ASSERT_TRUE(until([&] { return master_.messages.size() == 1; }));
  EXPECT_FALSE(world_->loop.run_until([&] { return !master_.closed.empty(); }, std::chrono::milliseconds(700)));
}

TEST_F(SessionTest, WrongRoleIsRefused) {
  serve();
  dial({domain, "viewer", "eve"});
  ASSERT_TRUE(until([&] { return !dialler_.disconnected.empty() && !master_.refused.empty(); }));
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("expected role soa"));
  EXPECT_THAT(master_.refused[0], HasSubstr("spiffe://dc.example/sami/viewer/eve"));
  EXPECT_THAT(master_.agents, IsEmpty());
}

TEST_F(SessionTest, ForeignDomainIsRefused) {
  serve();
  const Identity foreign{"other.example", "soa", "fw1"};
  // It expects a master of its own domain, so it refuses first.
  dial(foreign);
  ASSERT_TRUE(until_disconnected());
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("wrong server"));
  EXPECT_THAT(master_.agents, IsEmpty());
}

TEST_F(SessionTest, WrongMasterIsRefused) {
  serve();
  client_ = world_->agent(soa("fw1"), "som2", {});
  client_->start(dialler_.handlers<AgentClient>());
  ASSERT_TRUE(until_disconnected());
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("the server is spiffe://dc.example/sami/som/som1"));
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("expected spiffe://dc.example/sami/som/som2"));
  EXPECT_THAT(master_.agents, IsEmpty());
}

TEST_F(SessionTest, OneSessionMoreThanAllowedIsRefused) {
  serve({.sessions = 1});
  dial();
  ASSERT_TRUE(until([&] { return master_.agents.size() == 1; }));
  const auto second = world_->agent(soa("fw2"), "som1", {});
  AgentDialler dialler;
  second->start(dialler.handlers<AgentClient>());
  ASSERT_TRUE(until([&] { return !dialler.disconnected.empty() && !master_.refused.empty(); }));
  EXPECT_THAT(dialler.disconnected[0], HasSubstr("1 sessions are open"));
  client_.reset();
  ASSERT_TRUE(until([&] { return dialler.connected == 1; }));
}

TEST_F(SessionTest, NothingIsCalledAfterTheEnd) {
  open();
  client_->send(upload(1, 10));
  master_.agents[0]->send(download(1, 10));
  const auto session = master_.agents[0];
  world_->stop();
  client_.reset();
  const auto before = std::tuple(master_.messages.size(), master_.closed.size(), dialler_.messages.size());
  session->send(download(2, 10));
  session->close("late");
  bool drained = false;  // whatever was posted before
  world_->loop.post([&] { drained = true; });
  ASSERT_TRUE(until([&] { return drained; }));
  EXPECT_EQ(before, std::tuple(master_.messages.size(), master_.closed.size(), dialler_.messages.size()));
  EXPECT_THAT(dialler_.disconnected, IsEmpty());
}

}  // namespace
}  // namespace sami::transport::testing
