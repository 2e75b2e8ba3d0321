// What the gate relies on of QEMU, said of the scripted one and of the real one.
#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "tde/qemu/qmp.h"
#include "tde/qemu/tests/fake_qemu.h"
#include "tde/qemu/tests/real_qemu.h"

namespace sami::tde::qmp {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr auto kPatience = std::chrono::seconds(30);
enum class Kind { Scripted, Real };

// One QEMU and our client of it, with what it said.
struct Side {
  Side(Kind kind, const std::string& path, bool incoming, FakeNetwork& network, Loop& loop) : loop_(loop) {
    if (kind == Kind::Real) {
      real = std::make_unique<RealQemu>(path, incoming);
    } else {
      fake = std::make_unique<FakeQemu>(path, incoming, network, loop);
    }
    client = make_client(path, loop);
    client->start({.on_connected = [this](const std::string& version) { greeted = version; },
                   .on_event =
                       [this](const Event& event) {
                         const auto status = event.data.text("status");
                         if (event.name == "MIGRATION_PASS") return;
                         happened.push_back(status ? event.name + " " + *status : event.name);
                       },
                   .on_disconnected = [this](const Error&) { ++absences; }});
  }

  Result<Fields> ask(const Command& command) {
    std::optional<Result<Fields>> got;
    client->execute(command, [&](Result<Fields> result) { got = std::move(result); });
    if (!loop_.run_until([&] { return got.has_value(); }, kPatience)) return failure(ErrorKind::Retry, "no answer");
    return *got;
  }
  bool saw(const std::string& what) {
    return loop_.run_until([&] { return std::find(happened.begin(), happened.end(), what) != happened.end(); },
                           kPatience);
  }
  void die() {
    real.reset();
    fake.reset();
  }
  // Set up as the gate does, and connected.
  void prepare() {
    ASSERT_TRUE(loop_.run_until([&] { return client->connected(); }, kPatience));
    ASSERT_TRUE(ask(set_capabilities({"events", "pause-before-switchover"})));
  }

  Loop& loop_;
  std::unique_ptr<FakeQemu> fake;
  std::unique_ptr<RealQemu> real;
  std::unique_ptr<Client> client;
  std::string greeted;
  std::vector<std::string> happened;
  int absences = 0;
};

class QemuConformance : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (GetParam() == Kind::Real && !qemu_installed()) GTEST_SKIP() << "no qemu-system-x86_64 is installed";
    folder_ = std::filesystem::temp_directory_path() / ("sami-qmp-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override {
    source_.reset();
    destination_.reset();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  Side& source() {
    if (!source_) source_.emplace(GetParam(), folder_ / "source.qmp", false, network_, loop_);
    return *source_;
  }
  Side& destination() {
    if (!destination_) destination_.emplace(GetParam(), folder_ / "destination.qmp", true, network_, loop_);
    return *destination_;
  }
  std::string uri() const { return "unix:" + (folder_ / "migration").string(); }

  // Both ends ready, and the copying has begun; slow: it does not end.
  void begin(bool slow) {
    source().prepare();
    destination().prepare();
    ASSERT_TRUE(destination().ask(migrate_incoming(uri())));
    ASSERT_TRUE(source().ask(set_bandwidth(slow ? 65536 : 1 << 30)));
    ASSERT_TRUE(source().ask(migrate(uri())));
    ASSERT_TRUE(source().saw("MIGRATION active"));
    ASSERT_TRUE(destination().saw("MIGRATION active"));
  }
  std::string status(Side& side) { return side.ask(query_status())->text("status").value_or(""); }
  std::string migration(Side& side) { return side.ask(query_migrate())->text("status").value_or(""); }

  Loop loop_;
  FakeNetwork network_;
  std::filesystem::path folder_;
  std::optional<Side> source_;
  std::optional<Side> destination_;
};

TEST_P(QemuConformance, GreetsAndAnswers) {
  ASSERT_TRUE(loop_.run_until([&] { return source().client->connected(); }, kPatience));
  EXPECT_THAT(source().greeted, ::testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  EXPECT_EQ(status(source()), "running");
  EXPECT_EQ(source().ask(query_status())->flag("running"), true);
  EXPECT_EQ(migration(source()), "");
  EXPECT_GT(source().ask(query_migrate_parameters())->number("max-bandwidth").value_or(0), 0);
  const auto unknown = source().ask({"migrate-to-the-moon", ""});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().kind, ErrorKind::Unsupported);
  const auto refused = source().ask(migrate_continue());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::Failed);
  ASSERT_FALSE(source().ask(set_capabilities({"no such thing"})));
  EXPECT_TRUE(source().client->connected());
}

TEST_P(QemuConformance, IncomingOneSaysSo) {
  destination().prepare();
  EXPECT_EQ(status(destination()), "inmigrate");
}

TEST_P(QemuConformance, StopsBeforeTheSwitchoverAndGoesOnWhenTold) {
  begin(false);
  ASSERT_TRUE(source().saw("MIGRATION pre-switchover"));
  EXPECT_THAT(source().happened,
              ElementsAre("MIGRATION setup", "MIGRATION active", "STOP", "MIGRATION pre-switchover"));
  EXPECT_EQ(status(source()), "finish-migrate");
  EXPECT_EQ(migration(source()), "pre-switchover");
  EXPECT_EQ(status(destination()), "inmigrate");
  ASSERT_TRUE(source().ask(migrate_continue()));
  ASSERT_TRUE(destination().saw("RESUME"));
  ASSERT_TRUE(source().saw("MIGRATION completed"));
  ASSERT_TRUE(destination().saw("MIGRATION completed"));
  EXPECT_EQ(source().happened.at(4), "MIGRATION device");
  EXPECT_EQ(status(source()), "postmigrate");
  EXPECT_EQ(status(destination()), "running");
  EXPECT_EQ(migration(source()), "completed");
}

TEST_P(QemuConformance, KeepsCopyingWhileTheBandwidthIsLow) {
  begin(true);
  EXPECT_FALSE(loop_.run_until([&] { return source().happened.size() > 2; }, std::chrono::milliseconds(700)));
  EXPECT_EQ(status(source()), "running");
  EXPECT_FALSE(source().ask(set_capabilities({}, {"pause-before-switchover"})));  // too late for that
  ASSERT_TRUE(source().ask(set_bandwidth(1 << 30)));
  ASSERT_TRUE(source().saw("MIGRATION pre-switchover"));
}

TEST_P(QemuConformance, CancelledWhileCopyingItNeverStopped) {
  begin(true);
  ASSERT_TRUE(source().ask(migrate_cancel()));
  ASSERT_TRUE(source().saw("MIGRATION cancelled"));
  EXPECT_THAT(source().happened, Not(::testing::Contains("STOP")));
  EXPECT_EQ(status(source()), "running");
}

TEST_P(QemuConformance, CancelledBeforeTheSwitchoverItRunsAtTheSourceAgain) {
  begin(false);
  ASSERT_TRUE(source().saw("MIGRATION pre-switchover"));
  ASSERT_TRUE(source().ask(migrate_cancel()));
  ASSERT_TRUE(source().saw("MIGRATION cancelled"));
  ASSERT_TRUE(source().saw("RESUME"));
  EXPECT_EQ(status(source()), "running");
  ASSERT_TRUE(source().ask(migrate_cancel()));  // again: harmless
}

TEST_P(QemuConformance, SourceDoesNotNoticeAKilledDestinationUntilItGoesOn) {
  begin(false);
  ASSERT_TRUE(source().saw("MIGRATION pre-switchover"));
  destination().die();
  ASSERT_TRUE(loop_.run_until([&] { return destination().absences == 1; }, kPatience));
  EXPECT_EQ(migration(source()), "pre-switchover");
  ASSERT_TRUE(source().ask(migrate_continue()));
  ASSERT_TRUE(source().saw("MIGRATION failed"));
  ASSERT_TRUE(source().saw("RESUME"));
  EXPECT_EQ(status(source()), "running");
}

INSTANTIATE_TEST_SUITE_P(Both, QemuConformance, ::testing::Values(Kind::Scripted, Kind::Real),
                         [](const auto& tested) { return tested.param == Kind::Real ? "real" : "scripted"; });

}  // namespace
}  // namespace sami::tde::qmp
