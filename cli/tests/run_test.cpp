#include "cli/run.h"

#include <gtest/gtest.h>

#include <sstream>

#include "cli/output.h"

namespace sami::cli {
namespace {

// Answers with what a test put in; everything else is a problem.
class ScriptedMaster : public MasterClient {
 public:
  api::ListHostsReply hosts_reply;
  std::vector<api::Migration> watched;
  std::map<std::string, api::StateReply> states;
  bool unreachable = false;

  Answer<api::StatusReply> status() override { return nothing(); }
  Answer<api::ListHostsReply> hosts() override {
    if (unreachable) return Problem{ExitCode::Unreachable, "the SOM does not answer"};
    return hosts_reply;
  }
  Answer<api::Empty> drain(const api::DrainHostRequest&) override { return nothing(); }
  Answer<api::ListVmsReply> vms() override { return nothing(); }
  Answer<api::ListMigrationsReply> migrations(const api::ListMigrationsRequest&) override { return nothing(); }
  Answer<api::Migration> migration(const std::string&) override { return nothing(); }
  Answer<api::Empty> watch(const std::string&, std::uint32_t, const Each<api::Migration>& each) override {
    for (const auto& migration : watched)
      if (!each(migration)) break;
    return api::Empty{};
  }
  Answer<api::PlanReply> plan(const api::PlanRequest&) override { return nothing(); }
  Answer<api::StartReply> start(const api::PlanRequest&) override {
    api::StartReply reply;
    reply.set_migration_id("m-7");
    return reply;
  }
  Answer<api::Empty> abort(const std::string&, const std::string&) override { return nothing(); }
  Answer<api::Empty> force(const std::string&) override { return nothing(); }
  Answer<api::Empty> resolve(const api::ResolveRequest&) override { return nothing(); }
  Answer<api::AuditReply> audit(const api::AuditRequest&) override { return nothing(); }
  Answer<api::Empty> state(const api::StateRequest& request, const Each<api::StateReply>& each) override {
    each(states[request.host()]);
    return api::Empty{};
  }
  Answer<api::TopologyReply> topology(const api::TopologyRequest&) override { return nothing(); }

 private:
  static Problem nothing() { return {ExitCode::NotFound, "nothing here"}; }
};

struct Outcome {
  ExitCode code;
  std::string out, err;
};

// Runs a command line against what the script sets up.
Outcome run_line(std::vector<const char*> arguments, const std::function<void(ScriptedMaster&)>& script) {
  arguments.insert(arguments.begin(), "sami");
  const auto parsed = parse_options(static_cast<int>(arguments.size()), arguments.data());
  const Daemons daemons{[&] {
                          auto master = std::make_unique<ScriptedMaster>();
                          script(*master);
                          return master;
                        },
                        nullptr, nullptr};
  std::ostringstream out, err;
  const ExitCode code = run(std::get<Options>(parsed), daemons, out, err);
  return {code, out.str(), err.str()};
}

api::Migration migration_in(const std::string& state, bool final) {
  api::Migration migration;
  migration.set_id("m-7");
  migration.set_state(state);
  migration.set_final(final);
  return migration;
}

TEST(Run, A_table_has_one_line_per_thing) {
  const auto outcome = run_line({"host", "list"}, [](ScriptedMaster& master) {
    auto* host = master.hosts_reply.add_hosts();
    host->set_name("fw1");
    host->set_connected(true);
  });
  EXPECT_EQ(outcome.code, ExitCode::Done);
  EXPECT_EQ(outcome.out, "HOST  CONNECTED  DRAINED  CLASSES  OPEN_TRANSFERS\nfw1   yes        no       -        0\n");
}

TEST(Run, What_is_not_there_is_said_on_standard_error) {
  const auto outcome = run_line({"host", "show", "fw9"}, [](ScriptedMaster&) {});
  EXPECT_EQ(outcome.code, ExitCode::NotFound);
  EXPECT_TRUE(outcome.out.empty());
  EXPECT_EQ(outcome.err, "sami: no State Host 'fw9' has registered; see `sami host list`\n");
}

TEST(Run, An_unreachable_daemon_has_its_exit_code) {
  EXPECT_EQ(run_line({"host", "list"}, [](ScriptedMaster& master) { master.unreachable = true; }).code,
            ExitCode::Unreachable);
}

TEST(Run, Waiting_exits_by_how_the_migration_ended) {
  for (const auto& [word, code] : std::vector<std::pair<std::string, ExitCode>>{{"DONE", ExitCode::Done},
                                                                                {"ROLLED_BACK", ExitCode::Failed},
                                                                                {"DONE_WITH_LOSS", ExitCode::Loss},
                                                                                {"IN_DOUBT", ExitCode::InDoubt}}) {
    const std::string state = word;
    const auto outcome = run_line({"migration", "start", "vm1", "server2", "--wait"}, [&](ScriptedMaster& master) {
      master.watched = {migration_in("PRECOPY", false), migration_in(state, state != "IN_DOUBT")};
    });
    EXPECT_EQ(outcome.code, code) << state;
    EXPECT_NE(outcome.out.find(state), std::string::npos);
  }
  const auto open = run_line({"migration", "start", "vm1", "server2", "--wait"},
                             [&](ScriptedMaster& master) { master.watched = {migration_in("PRECOPY", false)}; });
  EXPECT_EQ(open.code, ExitCode::TimedOut);
}

TEST(Run, Diff_shows_what_only_one_host_has) {
  const auto put = [](ScriptedMaster& master, const std::string& host, const std::vector<std::string>& keys) {
    for (const auto& key : keys) master.states[host].add_records()->set_key(key);
    master.states[host].set_state_class("other");
  };
  const auto outcome = run_line({"state", "diff", "--vm", "vm1", "fw1", "fw2"}, [&](ScriptedMaster& master) {
    put(master, "fw1", {"a", "b"});
    put(master, "fw2", {"b", "c"});
  });
  EXPECT_EQ(outcome.code, ExitCode::Different);
  EXPECT_EQ(outcome.out.substr(0, 5), "- fw1");
  EXPECT_NE(outcome.out.find("\n+ fw2"), std::string::npos);
}

}  // namespace
}  // namespace sami::cli
