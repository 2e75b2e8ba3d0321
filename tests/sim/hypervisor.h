// A model of the hypervisors: begins moves, pauses after MayPause or without waiting, obeys the verdict or not, dies,
// cancels, and sometimes is only noticed afterwards. What it does is the truth that rule 1 is about.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "interfaces/common/common.pb.h"
#include "protocol/gate.h"
#include "tests/sim/fake_driver.h"

namespace sami::sim {

class World;

enum class Phase { Copying, Paused, AtDestination, AtSource };

struct Move {
  enum class OnVerdict { Obey, GoOn, GoBack, Ignore, Die };
  std::string id;
  std::size_t vm = 0;
  std::size_t from = 0;
  std::size_t to = 0;
  bool announced = true;  // else it is only noticed afterwards
  Phase phase = Phase::Copying;
  Instant began;
  bool dead = false;   // the hypervisor cannot say what became of it
  bool ended = false;  // Concluded, or Refused
  bool waits = true;   // for MayPause
  OnVerdict on_verdict = OnVerdict::Obey;
  std::vector<common::v1::Transfer> transfers;
};

class Hypervisor {
 public:
  explicit Hypervisor(World& world) : world_(world) {}

  void instruct(const protocol::HypervisorInstruction& instruction);
  // Begins a move of some VM that is not being moved.
  void begin_some_move();
  // The TDE looks for VMs that are not where it thinks they are.
  void notice();
  // The gate has journaled an outcome: that is where the TDE thinks the VM is from now on.
  void notified(const std::string& id, bool at_destination);
  void heal();
  bool quiet() const;
  const std::map<std::string, Move>& moves() const { return moves_; }
  const Move* find(const std::string& id) const;
  // The move that the VM is in, if any.
  const Move* open_move(std::size_t vm) const;
  // It is being moved, or not everybody knows yet that it was.
  bool in_motion(std::size_t vm) const;
  // It ran somewhere, and went on before the TDE noticed.
  bool ran_unnoticed(std::size_t vm) const;

 private:
  void plan_script(Move& move);
  void announce(Move& move, if_m_t::v1::Phase phase);
  void carry_out(const protocol::HypervisorInstruction& instruction);
  void pause(const std::string& id);
  void resume(const std::string& id, bool at_destination);
  void verdict(const std::string& id, bool go_on);
  void find_out(const std::string& id);
  void report_later(const std::string& id);
  void report(const Move& move);
  void mark_flows(std::size_t vm);

  World& world_;
  std::map<std::string, Move> moves_;
  std::uint64_t next_ = 0;
  std::map<std::string, bool> told_;  // moves whose outcome the TDE has taken
};

}  // namespace sami::sim
