#include "lab/hypervisor.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "lab/poll.h"

namespace sami::lab {
namespace {

using SteadyClock = std::chrono::steady_clock;

double milliseconds_since(SteadyClock::time_point begin) {
  return std::chrono::duration<double, std::milli>(SteadyClock::now() - begin).count();
}

}  // namespace

class LabHypervisor::Move {
 public:
  using At = Misbehaviour::At;

  Move(Lab& lab, GateClient* gate, const MoveOptions& options, const std::string& vm, const std::string& server)
      : lab_(lab), gate_(options.with_sami ? gate : nullptr), options_(options) {
    report_.vm = vm;
    report_.source = lab.place_of(vm);
    report_.destination = server;
  }

  Result<MoveReport> run() {
    auto done = perform();
    if (!done) return tl::unexpected(done.error());
    return report_;
  }

 private:
  enum class Place { Source, Nowhere, Destination };

  Result<void> perform() {
    if (auto announced = announce(); !announced || over_) return announced;
    if (auto allowed = wait_for_leave(); !allowed || over_) return allowed;
    if (auto paused = pause(); !paused || over_) return paused;
    if (auto told = wait_for_verdict(); !told || over_) return told;
    return resume();
  }

  Result<void> announce() {
    if (gate_ == nullptr) return {};
    auto sent =
        reaching_gate<std::string>([&] { return gate_->announce(report_.vm, report_.destination, options_.force); });
    if (!sent) return tl::unexpected(sent.error());
    report_.notification_id = *sent;
    note("announced as " + *sent);
    return reach(At::Announced);
  }

  Result<void> wait_for_leave() {
    if (gate_ == nullptr) return {};
    if (!options_.misbehaviour.pause_without_leave) {
      auto told = wait_for({"MayPause", "Continue", "Cancel"});
      if (!told || over_) return told;
      if (report_.instruction == "Cancel" && !options_.misbehaviour.continue_on_cancel) return go_back();
      note("may pause");
    }
    return reach(At::StandingBy);
  }

  Result<void> pause() {
    paused_at_ = SteadyClock::now();
    if (auto done = lab_.detach(report_.vm); !done) return done;
    place_ = Place::Nowhere;
    note("paused");
    if (auto told = tell(GatePhase::Paused); !told) return told;
    return reach(At::Paused);
  }

  Result<void> wait_for_verdict() {
    if (gate_ != nullptr) {
      auto told = wait_for({"Continue", "Cancel"});
      if (!told || over_) return told;
      note("told to " + report_.instruction);
    }
    const auto left = options_.pause - std::chrono::milliseconds(static_cast<int>(milliseconds_since(paused_at_)));
    (void)poll_until(
        std::max(left, milliseconds(0)), [] { return false; }, milliseconds(1));
    if (gate_ == nullptr) return {};
    if (auto reached = reach(At::Instructed); !reached || over_) return reached;
    const auto& defiance = options_.misbehaviour;
    const bool back = report_.instruction == "Cancel" ? !defiance.continue_on_cancel : defiance.cancel_on_continue;
    return back ? go_back() : Result<void>{};
  }

  // Announced before it runs: what it sends by one firewall is not answered by the other.
  Result<void> resume() {
    if (auto done = lab_.announce(report_.vm, report_.destination); !done) return done;
    note("addresses announced at the destination");
    if (auto done = lab_.attach(report_.vm, report_.destination); !done) return done;
    place_ = Place::Destination;
    report_.paused_milliseconds = milliseconds_since(paused_at_);
    report_.moved = true;
    note("runs at the destination");
    if (auto done = lab_.withdraw(report_.vm, report_.source); !done) return done;
    note("addresses withdrawn at the source");
    if (auto reached = reach(At::Resumed); !reached || over_) return reached;
    return conclude(GatePhase::Resumed);
  }

  Result<void> go_back() {
    if (place_ == Place::Nowhere) {
      if (auto done = lab_.attach(report_.vm, report_.source); !done) return done;
      report_.paused_milliseconds = milliseconds_since(paused_at_);
    }
    place_ = Place::Source;
    cancelled_ = true;
    note("runs at the source");
    return conclude(GatePhase::Cancelled);
  }

  Result<void> conclude(GatePhase outcome) {
    over_ = true;
    if (gate_ == nullptr) return {};
    if (auto told = tell(outcome); !told) return told;
    const auto told = wait_for({"Concluded"});
    note("concluded: " + report_.final_state);
    return told;
  }

  // A point of the move: what a test does there, and whether it ends there.
  Result<void> reach(At point) {
    if (options_.on_reaching) options_.on_reaching(point);
    if (options_.misbehaviour.die_at == point) {
      report_.died = over_ = true;
      note("dies");
      return {};
    }
    return options_.misbehaviour.cancel_at == point && point != At::Resumed ? go_back() : Result<void>{};
  }

  Result<void> tell(GatePhase phase) {
    if (gate_ == nullptr) return {};
    return reaching_gate<void>([&] { return gate_->notify(phase, report_.notification_id); });
  }

  // The daemon may be restarted meanwhile: as long as it cannot be reached, the call is repeated.
  template <typename T>
  Result<T> reaching_gate(const std::function<Result<T>()>& call) {
    Result<T> answer = call();
    (void)poll_until(options_.deadline, [&] {
      if (answer || answer.error().kind != ErrorKind::Reconnect) return true;
      answer = call();
      return static_cast<bool>(answer);
    });
    return answer;
  }

  // Until the gate says one of these, or Refused, which ends the move; what else it says is answered or passed over.
  Result<void> wait_for(const std::set<std::string>& wanted) {
    const auto end = SteadyClock::now() + options_.deadline;
    while (SteadyClock::now() < end) {
      if (!watch_) {
        auto opened = gate_->watch(report_.notification_id);
        if (!opened) return tl::unexpected(opened.error());
        watch_ = std::move(*opened);
      }
      auto status = watch_->next(std::chrono::milliseconds(200));
      if (!status) {
        // What has been concluded is forgotten.
        if (status.error().kind == ErrorKind::InvalidInput && wanted.count("Concluded") != 0) return {};
        if (status.error().kind == ErrorKind::Reconnect)
          watch_again();
        else if (status.error().kind != ErrorKind::Retry)
          return tl::unexpected(status.error());
        continue;
      }
      if (!status->migration_id.empty()) report_.migration_id = status->migration_id;
      if (auto answered = take(*status, wanted); !answered || heard_) {
        heard_ = false;
        return answered;
      }
    }
    return failure(ErrorKind::Retry, fmt::format("the gate said nothing of the move of {} for {} ms", report_.vm,
                                                 options_.deadline.count()));
  }

  void watch_again() {
    watch_.reset();
    (void)poll_until(
        milliseconds(50), [] { return false; }, milliseconds(10));
  }

  Result<void> take(const GateStatus& status, const std::set<std::string>& wanted) {
    if (status.instruction == "FindOut") return say_where_it_runs();
    if (status.instruction == "Refused") {
      report_.instruction = status.instruction;
      report_.detail = status.detail;
      note("refused: " + status.detail);
      over_ = heard_ = true;
      return place_ == Place::Nowhere ? lab_.attach(report_.vm, report_.source) : Result<void>{};
    }
    if (wanted.count(status.instruction) == 0) return {};
    heard_ = true;
    if (status.instruction == "Concluded")
      report_.final_state = status.detail;
    else if (status.instruction != "MayPause")
      report_.instruction = status.instruction;
    return {};
  }

  Result<void> say_where_it_runs() {
    if (place_ == Place::Nowhere) return tell(GatePhase::Paused);
    if (place_ == Place::Destination) return tell(GatePhase::Resumed);
    return cancelled_ ? tell(GatePhase::Cancelled) : Result<void>{};
  }

  void note(const std::string& what) { report_.timeline.push_back({milliseconds_since(begin_), what}); }

  Lab& lab_;
  GateClient* gate_;
  const MoveOptions& options_;
  MoveReport report_;
  std::unique_ptr<GateWatch> watch_;
  SteadyClock::time_point begin_ = SteadyClock::now();
  SteadyClock::time_point paused_at_ = begin_;
  Place place_ = Place::Source;
  bool cancelled_ = false;
  bool over_ = false;   // nothing more is to be done
  bool heard_ = false;  // what wait_for waits for
};

Result<MoveReport> LabHypervisor::move(const std::string& vm, const std::string& server, const MoveOptions& options) {
  if (auto possible = lab_.placement(vm, server); !possible) return tl::unexpected(possible.error());
  if (lab_.place_of(vm) == server) {
    return failure(ErrorKind::InvalidInput, fmt::format("{} runs on {} already", vm, server));
  }
  if (options.with_sami && gate_ == nullptr) {
    return failure(ErrorKind::InvalidInput,
                   fmt::format("lab {} runs without SAMI: move with --without-sami", lab_.state().name));
  }
  return Move(lab_, gate_, options, vm, server).run();
}

}  // namespace sami::lab
