// A State Host with a valid certificate that misuses it: refused with a reason, no trace left, everybody else lives on.
#include <signal.h>

#include "lab/poll.h"
#include "lab/process.h"
#include "tests/system/system_test.h"

namespace sami::lab {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class HostileTest : public SystemTest {
 protected:
  // fw1's place is taken by one that does ill.
  Conversation take_over(const std::string& claimed_host, const std::string& behaviour) {
    EXPECT_TRUE(lab().kill_daemon("fw1", SIGKILL));
    auto rogue =
        Conversation::start({lab().binaries() + "/sami-rogue-agent", std::string(usecase1::kSomAddress) + ":7500",
                             lab().folder() + "/pki", "fw1", claimed_host, behaviour},
                            lab().namespace_of("fw1"));
    if (!rogue) throw std::runtime_error(rogue.error().message);
    return std::move(*rogue);
  }
  // Reads lines until one begins like this.
  std::string hear(Conversation& rogue, const std::string& beginning) {
    for (;;) {
      const auto line = rogue.hear(std::chrono::seconds(20));
      if (!line) return "nothing like '" + beginning + "': " + line.error().message;
      if (line->rfind(beginning, 0) == 0) return *line;
    }
  }
  void expect_all_alive() {
    for (const char* name : {"som1", "fw2", "tde1"}) {
      const auto daemon = lab().daemon(name);
      ASSERT_TRUE(daemon);
      EXPECT_TRUE(is_running(daemon->process)) << name;
      EXPECT_TRUE(ask_status(daemon->program, daemon->control_socket)) << name;
    }
  }
  std::string log_of(const std::string& name) {
    const auto text = run({"cat", lab().daemon(name)->log});
    return text ? text->output : "";
  }
};

struct Ill {
  std::string behaviour;
  std::string verdict;
};
void PrintTo(const Ill& ill, std::ostream* out) { *out << ill.behaviour; }

class HostileUpload : public HostileTest, public ::testing::WithParamInterface<Ill> {};

TEST_P(HostileUpload, IsANoGoAndLeavesNoTrace) {
  up(Nat::None);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, 5);
  const auto before = entries("fw2");
  auto rogue = take_over("fw1", GetParam().behaviour);
  EXPECT_EQ(hear(rogue, "registered"), "registered");
  const auto report = move("server2");
  EXPECT_FALSE(report.moved);
  EXPECT_EQ(report.final_state, "ROLLED_BACK");
  EXPECT_EQ(entries("fw2"), before);
  EXPECT_TRUE(traffic.client.wait_for_progress(5));
  expect_all_alive();
  EXPECT_THAT(log_of("som1"), ContainsRegex("vote NO_GO: [^\n]*" + GetParam().verdict));
}

INSTANTIATE_TEST_SUITE_P(EveryIll, HostileUpload,
                         ::testing::Values(Ill{"foreign", "FOREIGN"}, Ill{"garbage", "MALFORMED"},
                                           Ill{"truncated", "MALFORMED"}, Ill{"oversized", "MALFORMED"}),
                         [](const auto& tested) { return tested.param.behaviour; });

TEST_F(HostileTest, AnAgentCannotSpeakForAnotherHost) {
  up(Nat::None);
  auto rogue = take_over("fw2", "foreign");
  EXPECT_THAT(hear(rogue, "refused"), HasSubstr("fw1"));
  expect_all_alive();
}

TEST_F(HostileTest, AnUnknownProtocolVersionIsRefusedWithTheReason) {
  up(Nat::None);
  auto rogue = take_over("fw1", "version");
  EXPECT_THAT(hear(rogue, "refused"), HasSubstr("version"));
  expect_all_alive();
}

}  // namespace
}  // namespace sami::lab
