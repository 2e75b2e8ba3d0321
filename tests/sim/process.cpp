#include "tests/sim/process.h"

#include "tests/sim/world.h"

namespace sami::sim {

Process::Process(World& world, std::string its_name)
    : name(std::move(its_name)), world_(world), engine_(world.engine) {}

void Process::start() {
  ++life_;
  ++machine_;
  failures_ = 0;
  build();
  arm();
}

void Process::crash(Duration down) {
  engine_.record("crash " + name);
  if (engine_.tracing()) engine_.trace(name + ": killed");
  ++life_;
  ++machine_;
  forget(true);
  rebuild_after(down);
}

void Process::fill_disk(Duration until_freed) {
  disk_full_until_ = std::max(disk_full_until_, engine_.now + until_freed);
  if (engine_.tracing()) engine_.trace(name + ": disk full");
}

void Process::rebuild_after(Duration delay) {
  armed_ = Instant::never();
  engine_.after(delay, [this, mine = machine_] {
    if (mine != machine_ || up()) return;
    if (engine_.tracing()) engine_.trace(name + ": starts");
    build();
    arm();
  });
}

Process::CrashPoint Process::draw_crash() {
  if (!engine_.fault(engine_.settings.crash)) return CrashPoint::None;
  return static_cast<CrashPoint>(1 + engine_.random.below(3));
}

bool Process::commit(const std::vector<JournalWrite>& writes) {
  if (writes.empty()) return true;
  if (!engine_.healed && engine_.now < disk_full_until_) {
    ++failures_;
    ++machine_;
    engine_.record("disk " + name);
    if (engine_.tracing()) engine_.trace(name + ": journal failed");
    forget(false);
    if (failures_ > 1) journal_unavailable();
    rebuild_after(milliseconds(100) * std::min(failures_, 10U));
    return false;
  }
  failures_ = 0;
  for (const auto& write : writes) {
    if (write.value) {
      journal[write.key] = *write.value;
    } else {
      journal.erase(write.key);
    }
  }
  return true;
}

void Process::arm() {
  if (!up()) return;
  const Instant next = next_deadline();
  if (next == Instant::never() || (armed_ != Instant::never() && armed_ <= next)) return;
  armed_ = std::max(next, engine_.now);
  engine_.at(armed_, [this, mine = machine_, when = armed_] {
    if (mine != machine_ || when != armed_ || !up()) return;
    armed_ = Instant::never();
    if (next_deadline() <= engine_.now) return tick();
    arm();
  });
}

}  // namespace sami::sim
