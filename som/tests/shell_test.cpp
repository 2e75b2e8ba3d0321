#include "som/tests/master.h"

namespace sami::som {
namespace {

using AgentMessage = if_m_a::v1::AgentMessage;
using ToAgent = if_m_a::v1::MasterMessage;
using ToTde = if_m_t::v1::MasterMessage;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

struct ShellTest : testing::Test {
  Master master;
};

TEST_F(ShellTest, AnAgentIsAuthorizedAndRegistered) {
  const auto fw1 = master.registered_agent("fw1");
  EXPECT_NE(first(fw1->sent, &ToAgent::has_authorized), nullptr);
  EXPECT_NE(first(fw1->sent, &ToAgent::has_registered), nullptr);
  EXPECT_TRUE(master.host_connected("fw1"));
  master.handlers.on_agent_closed(fw1, "gone");
  EXPECT_FALSE(master.host_connected("fw1"));
}

TEST_F(ShellTest, ASecondSessionOfAHostReplacesTheFirst) {
  const auto old = master.registered_agent("fw1");
  const auto fresh = master.registered_agent("fw1");
  EXPECT_THAT(old->closed, HasSubstr("replaced"));
  EXPECT_THAT(fresh->closed, IsEmpty());
  master.handlers.on_agent_closed(old, "closed");
  EXPECT_TRUE(master.host_connected("fw1")) << "the end of the old session is not the end of the new one";
  const auto commits = master.journal.commits();
  AgentMessage message;
  *message.mutable_register_() = profile("fw1");
  const auto before = fresh->sent.size();
  master.say(old, message);
  EXPECT_EQ(fresh->sent.size(), before) << "what the old session still says is not heard";
  EXPECT_EQ(master.journal.commits(), commits);
}

TEST_F(ShellTest, AnAgentSpeaksOnlyForItsOwnHost) {
  const auto claims_identity = master.open_agent("fw1");
  master.authorize(claims_identity, "spiffe://dc.example/sami/soa/fw2");
  ASSERT_NE(first(claims_identity->sent, &ToAgent::has_refused), nullptr);
  EXPECT_THAT(claims_identity->closed, HasSubstr("the certificate says spiffe://dc.example/sami/soa/fw1"));

  const auto claims_host = master.open_agent("fw1");
  master.authorize(claims_host, claims_host->peer().uri());
  AgentMessage message;
  *message.mutable_register_() = profile("fw2");
  master.say(claims_host, message);
  EXPECT_THAT(claims_host->closed, HasSubstr("Register is for the State Host 'fw2'"));
  EXPECT_FALSE(master.host_connected("fw1"));
  EXPECT_THAT(master.audited("refused"), Contains(HasSubstr("Register is for the State Host 'fw2'")));
}

TEST_F(ShellTest, TheFirstMessageMustBeAuthorize) {
  const auto fw1 = master.open_agent("fw1");
  AgentMessage message;
  *message.mutable_register_() = profile("fw1");
  master.say(fw1, message);
  EXPECT_THAT(fw1->closed, HasSubstr("must be Authorize"));
  const auto tde1 = master.open_tde("tde1");
  master.announce(tde1, vm1());
  EXPECT_THAT(tde1->closed, HasSubstr("must be Authorize"));
  EXPECT_THAT(master.shell->machine()->migrations(), IsEmpty());
}

TEST_F(ShellTest, OnlyConfiguredPeersGetIn) {
  const auto stranger = master.open_agent("router9");
  EXPECT_THAT(stranger->closed, HasSubstr("may not register; the configuration allows fw*"));
  const auto tde = master.open_tde("tde9");
  EXPECT_THAT(tde->closed, HasSubstr("not one of the configured tdes"));
  EXPECT_THAT(master.audited("refused"), testing::SizeIs(2));
}

TEST_F(ShellTest, AnUnknownVersionEndsTheSessionAndIsAudited) {
  const auto fw1 = master.open_agent("fw1");
  master.authorize(fw1, fw1->peer().uri(), 99);
  ASSERT_NE(first(fw1->sent, &ToAgent::has_refused), nullptr);
  EXPECT_THAT(fw1->closed, HasSubstr("version"));
  EXPECT_FALSE(master.host_connected("fw1"));
  EXPECT_THAT(master.audited("refused"), Contains(HasSubstr("version")));
  EXPECT_EQ(master.shell->counters().sessions_refused, 1u);
}

TEST_F(ShellTest, ATdeSpeaksOnlyForItsSubjects) {
  const auto tde1 = master.authorized_tde();
  auto foreign = vm1();
  foreign.set_id("database1");
  master.announce(tde1, foreign);
  const auto* answer = first(tde1->sent, &ToTde::has_notify_acknowledged);
  ASSERT_NE(answer, nullptr);
  EXPECT_FALSE(answer->notify_acknowledged().accepted());
  EXPECT_THAT(answer->notify_acknowledged().reason(), HasSubstr("may not speak for the subject 'database1'"));
  EXPECT_THAT(master.shell->machine()->migrations(), IsEmpty());
  EXPECT_THAT(master.audited("refused"), Contains(HasSubstr("database1")));
  EXPECT_THAT(tde1->closed, IsEmpty());

  master.place(tde1, foreign, "server1");
  EXPECT_THAT(master.shell->machine()->subjects(), IsEmpty());
}

TEST_F(ShellTest, ATdeMayNotClaimMoreSubjectsThanConfigured) {
  const auto tde1 = master.open_tde("tde1");
  if_m_t::v1::TdeMessage message;
  message.mutable_authorize()->set_identity(tde1->peer().uri());
  message.mutable_authorize()->add_protocol_versions(1);
  message.mutable_authorize()->add_subjects("*");
  master.say(tde1, message);
  EXPECT_THAT(tde1->closed, HasSubstr("the configuration allows vm*"));
}

// A migration in PRECOPY; returns the session of the source and of the destination.
std::pair<std::shared_ptr<Agent>, std::shared_ptr<Agent>> in_precopy(Master& master) {
  auto fw1 = master.registered_agent("fw1");
  auto fw2 = master.registered_agent("fw2");
  master.announce(master.authorized_tde(), vm1());
  const auto* asked = first(fw2->sent, &ToAgent::has_get_ready);
  EXPECT_NE(asked, nullptr);
  if (asked == nullptr) return {fw1, fw2};
  AgentMessage ready;
  *ready.mutable_ready()->mutable_transfer() = asked->get_ready().transfer();
  ready.mutable_ready()->set_window(8);
  master.say(fw2, ready);
  EXPECT_NE(first(fw1->sent, &ToAgent::has_upload_request), nullptr);
  return {fw1, fw2};
}

AgentMessage chunk_of(const std::shared_ptr<Agent>& source, const std::string& bytes) {
  AgentMessage message;
  auto& upload = *message.mutable_upload_state();
  *upload.mutable_transfer() = first(source->sent, &ToAgent::has_upload_request)->upload_request().transfer();
  upload.set_chunk(bytes);
  return message;
}

TEST_F(ShellTest, ARelayedChunkDoesNotTouchTheDisk) {
  const auto [fw1, fw2] = in_precopy(master);
  const auto commits = master.journal.commits();
  master.say(fw1, chunk_of(fw1, "opaque"));
  const auto* relayed = first(fw2->sent, &ToAgent::has_download_state);
  ASSERT_NE(relayed, nullptr);
  EXPECT_EQ(relayed->download_state().chunk(), "opaque");
  EXPECT_EQ(master.journal.commits(), commits);
  EXPECT_EQ(master.shell->counters().chunks_relayed, 1u);
  EXPECT_EQ(master.shell->counters().bytes_relayed, 6u);
}

TEST_F(ShellTest, AChunkForAPeerThatDoesNotKeepUpIsLeftOut) {
  const auto [fw1, fw2] = in_precopy(master);
  fw2->queued = 16 << 20;
  master.say(fw1, chunk_of(fw1, "opaque"));
  EXPECT_EQ(first(fw2->sent, &ToAgent::has_download_state), nullptr);
  EXPECT_EQ(master.shell->counters().chunks_left_out, 1u);
}

TEST_F(ShellTest, AFailedCommitDiscardsTheStepAndStartsAgainFromTheJournal) {
  const auto fw1 = master.registered_agent("fw1");
  const auto tde1 = master.authorized_tde();
  const auto sent = fw1->sent.size();
  master.journal.fail_commits(1, {ErrorKind::Failed, "database or disk is full", 28});
  master.announce(tde1, vm1());
  EXPECT_EQ(first(tde1->sent, &ToTde::has_notify_acknowledged), nullptr) << "nobody sees what was not journaled";
  EXPECT_EQ(fw1->sent.size(), sent);
  EXPECT_THAT(fw1->closed, HasSubstr("journal"));
  EXPECT_THAT(tde1->closed, HasSubstr("journal"));
  EXPECT_EQ(master.shell->machine(), nullptr);
  EXPECT_EQ(master.operations->hosts().error().kind, ProblemKind::Unavailable);
  EXPECT_THAT(master.operations->hosts().error().message, HasSubstr("disk is full"));
  EXPECT_THAT(master.open_agent("fw1")->closed, HasSubstr("cannot be used at present"));

  ASSERT_TRUE(master.until([&] { return master.shell->machine() != nullptr; }));
  EXPECT_THAT(master.shell->machine()->migrations(), IsEmpty());
  const auto again = master.authorized_tde();
  master.announce(again, vm1());
  const auto* answer = first(again->sent, &ToTde::has_notify_acknowledged);
  ASSERT_NE(answer, nullptr);
  EXPECT_TRUE(answer->notify_acknowledged().accepted());
  EXPECT_EQ(master.shell->counters().journal_failures, 1u);
}

TEST_F(ShellTest, AnOpenMigrationGoesOnAfterARestart) {
  in_precopy(master);
  const std::string id = master.shell->machine()->migrations().at(0)->id();
  master.restart();
  ASSERT_NE(master.shell->machine()->find(id), nullptr);
  master.registered_agent("fw1");
  const auto fw2 = master.registered_agent("fw2");
  master.authorized_tde();
  EXPECT_TRUE(master.until([&] {
    return first(fw2->sent, &ToAgent::has_get_ready) != nullptr ||
           first(fw2->sent, &ToAgent::has_status_request) != nullptr;
  }));
}

TEST_F(ShellTest, ReloadClosesWhoIsNoLongerAllowed) {
  const auto fw1 = master.registered_agent("fw1");
  const auto tde1 = master.authorized_tde();
  auto changed = settings();
  changed.agents = {"fw2"};
  changed.tdes = {{"tde2", {"*"}}};
  master.shell->reload(changed);
  EXPECT_THAT(fw1->closed, HasSubstr("may not register"));
  EXPECT_THAT(tde1->closed, HasSubstr("not one of the configured tdes"));
}

TEST(AuditTrail, EntriesThatCannotBeWrittenAreWrittenLater) {
  struct Failing final : Audit {
    Result<void> append(const std::vector<AuditRecord>& records) override {
      if (broken) return failure(ErrorKind::Failed, "disk is full");
      return inner->append(records);
    }
    Result<std::vector<AuditRecord>> query(const AuditQuery& query) override { return inner->query(query); }
    std::unique_ptr<Audit> inner = make_memory_audit();
    bool broken = true;
  } audit;
  AuditTrail trail(audit, system_clock(), Log(LogLevel::Error, [](LogLevel, const std::string&) {}));
  trail.add("vote", "first");
  audit.broken = false;
  trail.add("vote", "second");
  const auto records = trail.query({});
  ASSERT_EQ(records->size(), 2u);
  EXPECT_EQ(records->at(0).detail, "first");
}

}  // namespace
}  // namespace sami::som
