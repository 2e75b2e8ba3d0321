// kill -9 of the State Orchestration Master, either agent and the gate in every state of their machines, at the moment
// at which the state has become durable and before the next one does: the migration ends where the VM is (rule 1),
// nothing is lost, nothing is there twice.
#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "lab/daemons.h"
#include "lab/poll.h"
#include "lab/process.h"
#include "protocol/som.h"
#include "tests/system/machine_states.h"
#include "tests/system/system_test.h"

namespace sami::lab {
namespace {

using ::testing::SizeIs;
using At = Misbehaviour::At;
using Json = nlohmann::json;

constexpr int kConnections = 20;
constexpr std::chrono::milliseconds kPatience{30000};

// What has to happen so that a machine comes into a state.
enum class Course {
  Moves,            // to the destination, as planned
  GoesBack,         // after go
  AgentIsLate,      // the destination's agent comes after the announcement
  NobodyTells,      // the hypervisor dies after go; what became of the VM is said much later
  UnknownNetwork,   // the destination does not know the VM's network: no-go
  TooMuch,          // the source may not read so many records: no-go
  TooMuchButForced  // and the VM moves regardless
};

struct Point {
  Machine machine;
  std::string state;
  Course course;
};

const std::vector<Point>& points() {
  static const std::vector<Point> all{
      {Machine::Som, "PLANNED", Course::AgentIsLate},
      {Machine::Som, "PREPARING", Course::Moves},
      {Machine::Som, "PRECOPY", Course::Moves},
      {Machine::Som, "STANDBY", Course::Moves},
      {Machine::Som, "SWITCHING", Course::Moves},
      {Machine::Som, "READY", Course::Moves},
      {Machine::Som, "RELEASING", Course::Moves},
      {Machine::Som, "DONE", Course::Moves},
      {Machine::Som, "DONE_WITH_LOSS", Course::TooMuchButForced},
      {Machine::Som, "ROLLING_BACK", Course::GoesBack},
      {Machine::Som, "ROLLED_BACK", Course::GoesBack},
      {Machine::Som, "IN_DOUBT", Course::NobodyTells},
      {Machine::Source, "FOLLOWING", Course::Moves},
      {Machine::Source, "FINALIZED", Course::Moves},
      {Machine::Source, "RELEASING", Course::Moves},
      {Machine::Source, "FAILED", Course::TooMuch},
      {Machine::Destination, "PREPARING", Course::Moves},
      {Machine::Destination, "RECEIVING", Course::Moves},
      {Machine::Destination, "STANDBY", Course::Moves},
      {Machine::Destination, "READY", Course::Moves},
      {Machine::Destination, "COMMITTING", Course::Moves},
      {Machine::Destination, "ROLLING_BACK", Course::GoesBack},
      {Machine::Destination, "FAILED", Course::UnknownNetwork},
      {Machine::Gate, "Announced", Course::Moves},
      {Machine::Gate, "StandingBy", Course::Moves},
      {Machine::Gate, "Paused", Course::Moves},
      {Machine::Gate, "Continuing", Course::Moves},
      {Machine::Gate, "Cancelling", Course::UnknownNetwork},
      {Machine::Gate, "Concluding", Course::Moves},
  };
  return all;
}

std::string daemon_of(Machine machine) {
  switch (machine) {
    case Machine::Som: return "som1";
    case Machine::Source: return "fw1";
    case Machine::Destination: return "fw2";
    case Machine::Gate: return "tde1";
  }
  return "";
}

std::uint32_t number_of(const Point& point) {
  for (const auto& state : states_of(point.machine)) {
    if (state.name == point.state) return state.number;
  }
  throw std::runtime_error(to_string(point.machine) + " has no state " + point.state);
}

// Kills a daemon in a state, and starts it again. Works on a thread of its own; the lab may be used meanwhile, but it
// keeps the dead process in mind.
class Killer {
 public:
  Killer(const Lab& lab, const Point& point, const std::string& moment)
      : binaries_(lab.binaries()), daemon_(*lab.daemon(daemon_of(point.machine))) {
    namespace_ = lab.namespace_of(daemon_.node);
    auto watcher = Conversation::start(
        {binaries_ + "/sami-kill-in-state", std::to_string(daemon_.process.pid), lab.folder() + "/" + daemon_.name,
         to_string(point.machine), std::to_string(number_of(point)), moment},
        "");
    if (!watcher) throw std::runtime_error(watcher.error().message);
    watcher_ = std::make_unique<Conversation>(std::move(*watcher));
    const auto heard = watcher_->hear(kPatience);
    if (!heard || *heard != "watching") throw std::runtime_error(heard ? *heard : heard.error().message);
    thread_ = std::thread([this] { wait_and_restart(); });
  }
  ~Killer() {
    given_up_ = true;
    thread_.join();
  }
  Killer(const Killer&) = delete;
  Killer& operator=(const Killer&) = delete;

  bool killed() const { return killed_; }
  // Empty when it was killed and runs again.
  std::string wait() {
    if (!poll_until(kPatience, [&] { return ended_.load(); })) return daemon_.name + " was never in that state";
    return failure_;
  }

 private:
  void wait_and_restart() {
    for (;;) {
      const auto heard = watcher_->hear(std::chrono::milliseconds(100));
      if (!heard && heard.error().kind == ErrorKind::Retry && !given_up_) continue;
      killed_ = heard && *heard == "killed";
      failure_ = killed_ ? "" : heard ? *heard : heard.error().message;
      break;
    }
    if (killed_) {
      const auto started =
          start_daemon({binaries_ + "/" + daemon_.program, "--config", daemon_.config}, namespace_, daemon_.log);
      if (started) daemon_.process = *started;
      const auto ready = started ? wait_until_ready(daemon_) : tl::unexpected(started.error());
      if (!ready) failure_ = ready.error().message;
    }
    ended_ = true;
  }

  std::string binaries_;
  DaemonRecord daemon_;
  std::string namespace_;
  std::unique_ptr<Conversation> watcher_;
  std::atomic<bool> given_up_{false};
  std::atomic<bool> killed_{false};
  std::atomic<bool> ended_{false};
  std::string failure_;
  std::thread thread_;
};

struct Killing {
  Point point;
  std::string moment;
};

std::string name_of(const ::testing::TestParamInfo<Killing>& tested) {
  return to_string(tested.param.point.machine) + "_" + tested.param.point.state + "_" + tested.param.moment;
}

void PrintTo(const Killing& killing, std::ostream* out) {
  *out << to_string(killing.point.machine) << " " << killing.point.state << " " << killing.moment;
}

class StateCrash : public SystemTest, public ::testing::WithParamInterface<Killing> {
 protected:
  Point point() const { return GetParam().point; }
  std::string moment() const { return GetParam().moment; }

  // Before there is traffic.
  void prepare(Course course) {
    up(Nat::Snat);
    if (course == Course::UnknownNetwork) reconfigure("fw2", "{green: 0}", "{blue: 0}");
    if (course == Course::NobodyTells) reconfigure("som1", "deadlines: {outcome_ms: 300}\n");
    if (course == Course::TooMuch || course == Course::TooMuchButForced) {
      reconfigure("fw1", "limits: {records_per_transfer: 5}\n");
    }
  }

  MoveOptions options_for(Course course, const Killer& killer) {
    MoveOptions options;
    options.force = course == Course::TooMuchButForced;
    options.misbehaviour.cancel_on_continue = course == Course::GoesBack;
    if (course == Course::NobodyTells) options.misbehaviour.die_at = At::Instructed;
    if (course != Course::AgentIsLate) return options;
    options.on_reaching = [&](At reached) {
      if (reached != At::Announced) return;
      EXPECT_TRUE(poll_until(kPatience, [&] { return killer.killed() || state_at_master() == "PLANNED"; }));
      ASSERT_TRUE(lab().start_daemon("fw2"));
    };
    return options;
  }

  // The migrations of vm1 that the master knows; empty while it does not answer.
  Json migrations() const {
    const auto all = Json::parse(sami({"migration", "list", "--vm", "vm1"}), nullptr, false);
    return all.is_array() ? all : Json::array();
  }
  std::string state_at_master() const {
    const auto all = migrations();
    return all.empty() ? "" : all.back()["state"].get<std::string>();
  }

  // Somebody finds the VM, wherever the test wants it to be.
  void tell_at_last(const MoveReport& report, const Killer& killer, bool at_destination) {
    ASSERT_TRUE(poll_until(kPatience, [&] { return killer.killed() || state_at_master() == "IN_DOUBT"; }));
    const std::string server = at_destination ? "server2" : "server1";
    ASSERT_TRUE(lab().announce("vm1", server));
    ASSERT_TRUE(lab().attach("vm1", server));
    ASSERT_TRUE(lab().withdraw("vm1", at_destination ? "server1" : "server2"));
    ASSERT_TRUE(gate().notify(at_destination ? GatePhase::Resumed : GatePhase::Cancelled, report.notification_id));
  }

  // One migration, which ended as the VM's place says.
  void expect_ended(Course course) {
    const bool away = lab().place_of("vm1") == "server2";
    const std::string expected = !away ? "ROLLED_BACK" : course == Course::TooMuchButForced ? "DONE_WITH_LOSS" : "DONE";
    EXPECT_TRUE(poll_until(kPatience, [&] { return state_at_master() == expected; }))
        << "expected " << expected << ", found " << migrations().dump(2);
    EXPECT_THAT(migrations(), SizeIs(1));
  }
};

TEST_P(StateCrash, MigrationEndsWhereTheVmIs) {
  const Course course = point().course;
  prepare(course);
  auto traffic = vm1_traffic(TrafficKind::TcpEcho, kConnections);
  const auto before = entries("fw1");
  if (course == Course::AgentIsLate) {
    ASSERT_TRUE(lab().kill_daemon("fw2", SIGKILL));
  }

  Killer killer(lab(), point(), moment());
  const auto report = move("server2", options_for(course, killer));
  if (course == Course::NobodyTells) tell_at_last(report, killer, moment() == "acted");
  EXPECT_EQ(killer.wait(), "");

  expect_ended(course);
  if (course == Course::TooMuchButForced) {  // what could not be carried stays where it is
    EXPECT_EQ(entries("fw1"), before);
    return;
  }
  expect_whole(traffic, kConnections);
}

std::vector<Killing> killings() {
  std::vector<Killing> all;
  for (const auto& point : points()) {
    all.push_back({point, "entered"});
    const bool final = point.machine == Machine::Som &&
                       protocol::is_final(static_cast<protocol::journal::MigrationState>(number_of(point)));
    if (!final) all.push_back({point, "acted"});  // in a final state nothing more is journaled
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(EveryMachineInEveryState, StateCrash, ::testing::ValuesIn(killings()), name_of);

// A state that is new in a machine has to be crashed in, too.
TEST(StateCrashes, NoStateIsLeftOut) {
  for (const auto machine : {Machine::Som, Machine::Source, Machine::Destination, Machine::Gate}) {
    const auto states = states_of(machine);
    EXPECT_FALSE(states.empty());
    for (const auto& state : states) {
      const auto count = std::count_if(points().begin(), points().end(), [&](const Point& point) {
        return point.machine == machine && point.state == state.name;
      });
      EXPECT_EQ(count, 1) << "the " << to_string(machine) << "'s state " << state.name << " has no kill point";
    }
  }
}

}  // namespace
}  // namespace sami::lab
