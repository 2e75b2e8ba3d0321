// What stands in the way at the destination: a no-go that says for each class of state what and why, before anything
// is lost. The VM stays, or comes back; its connections live; the destination is as it was before.
#include <nlohmann/json.hpp>

#include "lab/process.h"
#include "tests/system/system_test.h"

namespace sami::lab {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using At = Misbehaviour::At;
using Json = nlohmann::json;

constexpr int kConnections = 20;

class LimitsTest : public SystemTest {
 protected:
  void begin() {
    traffic_.emplace(vm1_traffic(TrafficKind::TcpEcho, kConnections));
    own_.emplace(converse("fw2", "vm3", kVm3Address, 7009, 7009, TrafficKind::TcpEcho, 3));  // the destination's own
    ASSERT_TRUE(traffic_->client.wait_for_progress(3));
  }

  std::string conntrack(const std::vector<std::string>& arguments) {
    std::vector<std::string> line{"conntrack"};
    line.insert(line.end(), arguments.begin(), arguments.end());
    RunOptions options;
    options.network_namespace = lab().namespace_of("fw2");
    const auto done = run(line, options);
    return done ? "" : done.error().message;
  }

  // Tries to move, expects a no-go for this reason, and everything as before.
  void expect_refusal(const std::string& code, const std::string& words, const MoveOptions& options = {}) {
    const auto source = entries("fw1");
    const auto destination = entries("fw2");
    const auto report = move("server2", options);
    EXPECT_FALSE(report.moved);
    EXPECT_EQ(lab().place_of("vm1"), "server1");
    EXPECT_EQ(report.instruction, "Cancel");
    EXPECT_EQ(report.final_state, "ROLLED_BACK");
    expect_verdict(report.migration_id, code, words);

    EXPECT_EQ(entries("fw2"), destination);
    const auto progress = traffic_->client.wait_for_progress(10);
    EXPECT_TRUE(progress) << progress.error().message;
    const auto now = entries("fw1");
    for (const auto& entry : source) EXPECT_THAT(now, Contains(entry));
    EXPECT_EQ(invalid_packets(), 0u);
    EXPECT_EQ(traffic_->client.report()->broken, 0);
  }

  // As an operator sees it.
  void expect_verdict(const std::string& migration, const std::string& code, const std::string& words) {
    const auto shown = Json::parse(sami({"migration", "show", migration}));
    EXPECT_EQ(shown["state"], "ROLLED_BACK");
    EXPECT_EQ(shown["vote"], "NO_GO");
    EXPECT_THAT(shown["vote_reason"].get<std::string>(), HasSubstr(code));
    bool found = false;
    for (const auto& transfer : shown["transfers"]) {
      for (const auto& feedback : transfer["classes"]) {
        EXPECT_EQ(feedback["class"], "connection_tracking");
        for (const auto& finding : feedback["findings"]) {
          if (finding["code"] != code) continue;
          found = true;
          EXPECT_EQ(feedback["result"], "FAILED");
          EXPECT_THAT(finding["detail"].get<std::string>(), HasSubstr(words));
        }
      }
    }
    EXPECT_TRUE(found) << "no finding " << code << " in " << shown.dump(2);
  }

  // With nothing in the way any more.
  void expect_move() {
    const auto report = move("server2");
    EXPECT_TRUE(report.moved);
    EXPECT_EQ(report.final_state, "DONE");
    const auto progress = traffic_->client.wait_for_progress(10);
    EXPECT_TRUE(progress) << progress.error().message;
    EXPECT_EQ(traffic_->client.report()->broken, 0);
    EXPECT_THAT(entries("fw1"), IsEmpty());
    EXPECT_TRUE(own_->client.wait_for_progress(3));
  }

  std::optional<Conversers> traffic_, own_;
};

TEST_F(LimitsTest, AnotherConnectionHoldsTheExternalPort) {
  up(Nat::Snat);
  begin();
  const std::string peer = peers_of(traffic_->server).front();  // "198.51.100.10:1024"
  const std::string port = peer.substr(peer.rfind(':') + 1);
  ASSERT_EQ(conntrack({"-I",
                       "-p",
                       "tcp",
                       "-s",
                       "10.1.1.77",
                       "-d",
                       kVm3Address,
                       "--sport",
                       "5555",
                       "--dport",
                       "7001",
                       "-r",
                       kVm3Address,
                       "-q",
                       "198.51.100.10",
                       "--reply-port-src",
                       "7001",
                       "--reply-port-dst",
                       port,
                       "--state",
                       "ESTABLISHED",
                       "-t",
                       "600"}),
            "");
  expect_refusal("CONFLICT", "198.51.100.10:" + port);
  ASSERT_EQ(conntrack({"-D", "-s", "10.1.1.77"}), "");
  expect_move();
}

TEST_F(LimitsTest, TheDestinationDoesNotHaveTheExternalAddress) {
  const std::string line = "  - {address: 198.51.100.10, moves_with_subject: true}\n";
  up(Nat::Snat);
  reconfigure("fw2", "", line);
  begin();
  expect_refusal("MISSING_EXTERNAL_ADDRESS", "198.51.100.10");
  reconfigure("fw2", line);  // the list of addresses is at the end
  expect_move();
}

TEST_F(LimitsTest, TheAgentsTableIsFull) {
  up(Nat::Snat);
  reconfigure("fw2", "classes: {connection_tracking: {capacity: 10}}\n");
  begin();
  expect_refusal("NO_CAPACITY", "10");
  reconfigure("fw2", "capacity: 100", "capacity: 10");
  expect_move();
}

// The last round brings one connection too many: the VM stands still already, and comes back.
TEST_F(LimitsTest, TheAgentsTableFillsUpDuringTheMove) {
  up(Nat::Snat);
  reconfigure("fw2", "classes: {connection_tracking: {capacity: 20}}\n");
  begin();
  std::optional<Conversers> late;
  MoveOptions options;
  options.on_reaching = [&](At reached) {
    if (reached == At::StandingBy) late = converse("vm1", "vm3", kVm3Address, 7005, 7005, TrafficKind::TcpEcho, 1);
  };
  expect_refusal("NO_CAPACITY", "20", options);
  EXPECT_TRUE(late->client.wait_for_progress(5));
}

}  // namespace
}  // namespace sami::lab
