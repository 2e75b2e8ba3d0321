#include "tests/sim/engine.h"

#include <fmt/format.h>

#include <algorithm>

namespace sami::sim {

namespace {
constexpr std::uint64_t spinning = 20'000;  // events at one instant
}

Settings::Settings(Random& random) {
  const std::uint64_t wildness = random.below(10);  // 0: nothing goes wrong
  const auto sometimes = [&](std::uint64_t permille) { return wildness > 0 && random.chance(permille); };
  latency_ms = random.between(1, 30);
  driver_ms = random.between(1, 10);
  if (sometimes(400)) loss = random.below(60) + 1;
  if (sometimes(300)) duplicate = random.below(100) + 1;
  if (sometimes(300)) reorder = random.below(200) + 1;
  if (sometimes(400)) cut = random.below(40) + 1;
  if (sometimes(500)) crash = random.below(8) + 1;
  if (sometimes(250)) disk_full = random.below(40) + 1;
  if (sometimes(250)) driver_error = random.below(40) + 1;
  if (sometimes(200)) partial_install = random.below(100) + 1;
  if (sometimes(200)) overrun = random.below(100) + 1;
  if (sometimes(150)) slow_driver = random.below(40) + 1;
  if (sometimes(200)) replay = random.below(100) + 1;
  if (sometimes(150)) hostile_agent = random.below(150) + 1;
  if (sometimes(150)) reboot = random.below(6) + 1;
  barrier = random.chance(300);
  pickup = sometimes(400);
  small_tables = sometimes(80);
  foreign_entries = sometimes(400);
  wild_hypervisor = sometimes(500);
  counters_essential = random.chance(500);
  continue_without_verdict = random.chance(300);
  operators = sometimes(200);
}

void Engine::after(Duration delay, std::function<void()> run) { at(now + delay, std::move(run)); }

void Engine::at(Instant when, std::function<void()> run) {
  queue_.push_back({std::max(when, now), order_++, std::move(run)});
  std::push_heap(queue_.begin(), queue_.end(), later);
}

bool Engine::run_one() {
  if (queue_.empty()) return false;
  std::pop_heap(queue_.begin(), queue_.end(), later);
  Event event = std::move(queue_.back());
  queue_.pop_back();
  same_instant_ = event.when == now ? same_instant_ + 1 : 0;
  if (same_instant_ > spinning) throw Broken{8, "the machines spin: time does not go on"};
  now = event.when;
  ++events_;
  event.run();
  return true;
}

void Engine::record(std::string_view kind, std::uint64_t detail) {
  std::uint64_t value = 0xcbf29ce484222325ULL;
  for (const char c : kind) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  hash_ = mix(hash_ ^ mix(value ^ mix(detail) ^ static_cast<std::uint64_t>(now.nanoseconds)));
}

void Engine::trace(const std::string& line) const {
  if (tracing_) fmt::print("{:>11.3f} {}\n", static_cast<double>(now.nanoseconds - 1'000'000'000) / 1e6, line);
}

}  // namespace sami::sim
