// Virtual time, chance and the record of a run. Everything that happens is an event of this queue; events of one
// instant run in the order in which they were scheduled, so that a seed is a run.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/clock.h"
#include "tests/sim/random.h"

namespace sami::sim {

using std::chrono::milliseconds;

// Thrown by a checker; ends the run.
struct Broken {
  int rule = 0;  // 1..9, the numbers of ARCHITECTURE.md
  std::string sentence;
};

// How hostile this run's world is; chances are in permille. Drawn from the seed.
struct Settings {
  explicit Settings(Random& random);
  milliseconds fault_phase{8000};
  std::int64_t latency_ms = 5;  // one way, at most
  std::uint64_t loss = 0;       // per message
  std::uint64_t duplicate = 0;
  std::uint64_t reorder = 0;
  std::uint64_t cut = 0;              // per link and 250 ms
  std::uint64_t crash = 0;            // per step of a machine
  std::uint64_t disk_full = 0;        // per process and 250 ms
  std::uint64_t driver_error = 0;     // per call
  std::uint64_t partial_install = 0;  // per install
  std::uint64_t overrun = 0;          // per class and 250 ms
  std::int64_t driver_ms = 3;         // per call, at most
  std::uint64_t slow_driver = 0;      // per call: up to two seconds
  std::uint64_t replay = 0;           // per message of the master: the same again, much later
  std::uint64_t hostile_agent = 0;    // per upload: something else instead
  std::uint64_t reboot = 0;           // per host and 250 ms
  bool barrier = false;
  bool pickup = false;  // packets in the middle of a flow make an entry (nf_conntrack_tcp_loose)
  bool small_tables = false;
  bool foreign_entries = false;  // other entries stand at the destinations, some under a key of the subject's
  bool wild_hypervisor = false;
  bool counters_essential = false;
  bool continue_without_verdict = false;
  bool operators = false;  // abort, force, resolve
};

class Engine {
 public:
  Engine(std::uint64_t seed, bool tracing) : random(mix(seed)), settings(random), tracing_(tracing) {}
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  Random random;
  Settings settings;
  Instant now{1'000'000'000};
  bool healed = false;

  void after(Duration delay, std::function<void()> run);
  void at(Instant when, std::function<void()> run);
  // The next event. False: there is none.
  bool run_one();
  // A fault of this chance happens now. Never once the world is healed.
  bool fault(std::uint64_t permille) { return permille > 0 && !healed && random.chance(permille); }
  Duration delay_ms(std::int64_t low, std::int64_t high) {
    return std::chrono::microseconds(random.between(low * 1000, high * 1000));
  }

  // What happened, for the hash that tells two runs apart.
  void record(std::string_view kind, std::uint64_t detail = 0);
  std::uint64_t hash() const { return hash_; }
  std::uint64_t events() const { return events_; }
  bool tracing() const { return tracing_; }
  // Only when tracing.
  void trace(const std::string& line) const;

 private:
  struct Event {
    Instant when;
    std::uint64_t order;
    std::function<void()> run;
  };
  static bool later(const Event& a, const Event& b) { return a.when != b.when ? a.when > b.when : a.order > b.order; }
  std::vector<Event> queue_;  // a heap
  std::uint64_t order_ = 0;
  std::uint64_t events_ = 0;
  std::uint64_t same_instant_ = 0;
  std::uint64_t hash_ = 0;
  const bool tracing_;
};

}  // namespace sami::sim
