#include "som/tests/master.h"

namespace sami::som {
namespace {

using ToAgent = if_m_a::v1::MasterMessage;
using ToTde = if_m_t::v1::MasterMessage;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

template <typename T>
struct Caught {
  std::optional<Answer<T>> answer;
  Reply<T> reply() {
    return [this](Answer<T> a) { answer = std::move(a); };
  }
};

api::PlanRequest move_of(const std::string& vm, const std::string& server) {
  api::PlanRequest request;
  request.set_subject_id(vm);
  request.set_destination_place(server);
  return request;
}

struct OperatorTest : testing::Test {
  void SetUp() override {
    tde1 = master.authorized_tde();
    master.place(tde1, vm1(), "server1");
  }
  void answer_path(const std::string& error = {}) {
    const auto* asked = first(tde1->sent, &ToTde::has_path_query);
    ASSERT_NE(asked, nullptr);
    if_m_t::v1::TdeMessage message;
    auto& reply = *message.mutable_path_reply();
    reply.set_query_id(asked->path_query().query_id());
    reply.set_error(error);
    *reply.mutable_subject() = vm1();
    reply.set_source_place("server1");
    *reply.add_transfers() = fw1_to_fw2();
    reply.add_topology("vm1 is on server1");
    master.say(tde1, message);
  }
  void answer_move(const std::string& notification, const std::string& error = {}) {
    const auto* asked = first(tde1->sent, &ToTde::has_move_request);
    ASSERT_NE(asked, nullptr);
    if_m_t::v1::TdeMessage message;
    auto& reply = *message.mutable_move_answer();
    reply.set_query_id(asked->move_request().query_id());
    reply.set_notification_id(notification);
    reply.set_error(error);
    master.say(tde1, message);
  }

  Master master{settings(), std::chrono::milliseconds(200)};
  std::shared_ptr<Tde> tde1;
};

TEST_F(OperatorTest, HostsAndVmsAreListed) {
  master.registered_agent("fw1");
  const auto hosts = master.operations->hosts();
  ASSERT_EQ(hosts->hosts_size(), 1);
  EXPECT_TRUE(hosts->hosts(0).connected());
  EXPECT_EQ(hosts->hosts(0).profile().classes_size(), 1);
  const auto vms = master.operations->vms();
  ASSERT_EQ(vms->vms_size(), 1);
  EXPECT_EQ(vms->vms(0).place(), "server1");
  EXPECT_EQ(vms->vms(0).tde(), "tde1");
  EXPECT_EQ(master.operations->status()->counters().at("agents_connected"), 1u);
}

TEST_F(OperatorTest, APlanNamesWhatStandsInTheWay) {
  master.registered_agent("fw1");
  Caught<api::PlanReply> plan;
  master.operations->plan(move_of("vm1", "server2"), plan.reply());
  EXPECT_FALSE(plan.answer.has_value());
  answer_path();
  ASSERT_TRUE(plan.answer && *plan.answer);
  EXPECT_EQ((*plan.answer)->source_place(), "server1");
  ASSERT_EQ((*plan.answer)->findings_size(), 1);
  EXPECT_EQ((*plan.answer)->findings(0).code(), common::v1::FINDING_UNREACHABLE);
  EXPECT_THAT((*plan.answer)->findings(0).detail(), HasSubstr("fw2"));
}

TEST_F(OperatorTest, ATdeThatRefusesFailsOrStaysSilentIsReported) {
  Caught<api::PlanReply> refused, gone, silent;
  master.operations->plan(move_of("vm1", "nowhere"), refused.reply());
  answer_path("there is no server nowhere");
  EXPECT_EQ(refused.answer->error().kind, ProblemKind::FailedPrecondition);
  EXPECT_THAT(refused.answer->error().message, HasSubstr("there is no server nowhere"));

  master.operations->plan(move_of("vm1", "server2"), silent.reply());
  ASSERT_TRUE(master.until([&] { return silent.answer.has_value(); }));
  EXPECT_EQ(silent.answer->error().kind, ProblemKind::DeadlineExceeded);

  master.operations->plan(move_of("vm1", "server2"), gone.reply());
  master.handlers.on_tde_closed(tde1, "gone");
  ASSERT_TRUE(gone.answer.has_value());
  EXPECT_EQ(gone.answer->error().kind, ProblemKind::Unavailable);

  Caught<api::PlanReply> unknown;
  master.operations->plan(move_of("vm9", "server2"), unknown.reply());
  EXPECT_EQ(unknown.answer->error().kind, ProblemKind::NotFound);
}

TEST_F(OperatorTest, AnotherPeerCannotAnswer) {
  auto more = settings();
  more.tdes.push_back({"tde2", {"vm*"}});
  master.shell->reload(more);
  const auto tde2 = master.authorized_tde("tde2");
  Caught<api::PlanReply> plan;
  master.operations->plan(move_of("vm1", "server2"), plan.reply());
  if_m_t::v1::TdeMessage message;
  message.mutable_path_reply()->set_query_id(first(tde1->sent, &ToTde::has_path_query)->path_query().query_id());
  master.say(tde2, message);
  EXPECT_FALSE(plan.answer.has_value());
}

TEST_F(OperatorTest, AStartAnswersWhenTheMigrationIsKnown) {
  Caught<api::StartReply> start;
  master.operations->start(move_of("vm1", "server2"), "operator/alice", start.reply());
  answer_move("n1");
  EXPECT_FALSE(start.answer.has_value());
  master.announce(tde1, vm1(), "n1");
  ASSERT_TRUE(start.answer && *start.answer);
  EXPECT_EQ((*start.answer)->notification_id(), "n1");
  EXPECT_NE(master.shell->machine()->find((*start.answer)->migration_id()), nullptr);
  EXPECT_THAT(master.audited("operator"), Contains(HasSubstr("operator/alice: start a move of vm1 to server2")));
}

TEST_F(OperatorTest, AStartThatTheMasterRefusesSaysWhy) {
  master.announce(tde1, vm1(), "n0");
  Caught<api::StartReply> start;
  master.operations->start(move_of("vm1", "server3"), "operator/alice", start.reply());
  master.announce(tde1, vm1(), "n1");     // before the answer that names it
  answer_move("n1");
  ASSERT_TRUE(start.answer.has_value());
  ASSERT_FALSE(start.answer->has_value());
  EXPECT_EQ(start.answer->error().kind, ProblemKind::FailedPrecondition);
  EXPECT_THAT(start.answer->error().message, HasSubstr("BUSY"));
  EXPECT_THAT(master.audited("operator"), Contains(HasSubstr("refused: BUSY")));
}

TEST_F(OperatorTest, StateIsRelayedPartByPart) {
  const auto fw1 = master.registered_agent("fw1");
  api::StateRequest request;
  request.set_host("fw1");
  request.set_subject_id("vm1");
  std::vector<std::string> keys;
  Caught<void> done;
  master.operations->state(
      request, [&](const api::StateReply& part) { keys.push_back(part.records(0).key()); }, done.reply());
  const auto* asked = first(fw1->sent, &ToAgent::has_state_query);
  ASSERT_NE(asked, nullptr);
  EXPECT_EQ(asked->state_query().subject().id(), "vm1");
  if_m_a::v1::AgentMessage message;
  auto& reply = *message.mutable_state_reply();
  reply.set_query_id(asked->state_query().query_id());
  reply.set_state_class("connection_tracking");
  reply.add_records()->set_key("a");
  master.say(fw1, message);
  reply.mutable_records(0)->set_key("b");
  reply.set_last(true);
  EXPECT_FALSE(done.answer.has_value());
  master.say(fw1, message);
  EXPECT_THAT(keys, ElementsAre("a", "b"));
  EXPECT_TRUE(done.answer && *done.answer);
}

TEST_F(OperatorTest, StateOfAnAgentThatIsGoneIsUnavailable) {
  const auto fw1 = master.registered_agent("fw1");
  api::StateRequest request;
  request.set_host("fw1");
  request.set_subject_id("vm1");
  Caught<void> interrupted, absent, unknown;
  master.operations->state(request, [](const auto&) {}, interrupted.reply());
  master.handlers.on_agent_closed(fw1, "gone");
  EXPECT_EQ(interrupted.answer->error().kind, ProblemKind::Unavailable);
  master.operations->state(request, [](const auto&) {}, absent.reply());
  EXPECT_EQ(absent.answer->error().kind, ProblemKind::Unavailable);
  request.set_host("fw9");
  master.operations->state(request, [](const auto&) {}, unknown.reply());
  EXPECT_EQ(unknown.answer->error().kind, ProblemKind::NotFound);
}

TEST_F(OperatorTest, AWatchSeesEveryChangeUntilTheEnd) {
  std::vector<std::string> states;
  std::optional<Problem> ended;
  const auto each = [&](Answer<api::Migration> migration) {
    if (migration)
      states.push_back(migration->state());
    else
      ended = migration.error();
  };
  master.operations->watch("m9", each);
  EXPECT_EQ(ended->kind, ProblemKind::NotFound);

  master.announce(tde1, vm1());
  const std::string id = master.shell->machine()->migrations().at(0)->id();
  const auto watch = master.operations->watch(id, each);
  ASSERT_EQ(states.size(), 1u);
  api::MigrationRequest request;
  request.set_id(id);
  request.set_reason("wrong VM");
  EXPECT_TRUE(master.operations->abort(request, "operator/alice"));
  EXPECT_GT(states.size(), 1u);
  const auto seen = states.size();
  master.operations->unwatch(watch);
  static_cast<void>(master.operations->force(request, "operator/alice"));
  EXPECT_EQ(states.size(), seen);
}

TEST_F(OperatorTest, WhatAltersIsAuditedWithTheActor) {
  master.registered_agent("fw1");
  api::DrainHostRequest drain;
  drain.set_host("fw1");
  drain.set_on(true);
  EXPECT_TRUE(master.operations->drain(drain, "operator/alice"));
  EXPECT_TRUE(master.operations->hosts()->hosts(0).drained());
  drain.set_host("fw9");
  const auto refused = master.operations->drain(drain, "operator/bob");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ProblemKind::FailedPrecondition);
  EXPECT_THAT(master.audited("operator"),
              ElementsAre(HasSubstr("alice"), HasSubstr("operator/bob: drain fw9: refused")));
  api::ResolveRequest resolve;
  resolve.set_id("m9");
  EXPECT_EQ(master.operations->resolve(resolve, "x").error().kind, ProblemKind::InvalidArgument);
  resolve.set_outcome(common::v1::OUTCOME_AT_SOURCE);
  EXPECT_EQ(master.operations->resolve(resolve, "x").error().kind, ProblemKind::NotFound);
}

TEST_F(OperatorTest, TheWholeTopologyIsThatOfEveryTde) {
  Caught<api::TopologyReply> topology;
  master.operations->topology({}, topology.reply());
  EXPECT_EQ(first(tde1->sent, &ToTde::has_path_query)->path_query().subject_id(), "");
  answer_path();
  ASSERT_TRUE(topology.answer && *topology.answer);
  EXPECT_THAT((*topology.answer)->lines(), ElementsAre("vm1 is on server1"));
}

}  // namespace
}  // namespace sami::som
