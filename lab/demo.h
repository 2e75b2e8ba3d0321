// `sami-lab demo usecase1`: the same move of the same VM with live connections, once without SAMI and once with it.
#pragma once

#include <cstdint>
#include <string>

#include "lab/hypervisor.h"
#include "lab/usecase1.h"
#include "runtime/result.h"

namespace sami::lab {

struct DemoOptions {
  Nat nat = Nat::None;
  int connections = 20;
};

struct DemoArm {
  bool survived = false;  // every connection makes progress after the move, and none broke
  int connections = 0;
  int broken = 0;                     // ended by an error
  double longest_stall_ms = 0;        // of any connection; without SAMI: until we stopped looking
  std::uint64_t invalid_packets = 0;  // dropped by either firewall as belonging to no connection
  MoveReport move;
};

// Brings a lab of its own up, moves vm1 under traffic, looks, takes the lab down. Blocks for seconds.
Result<DemoArm> run_demo_arm(bool with_sami, const DemoOptions& options);

std::string demo_as_text(const DemoArm& without, const DemoArm& with);
// One line: {"without": {"survived": ..., ...}, "with": {...}}.
std::string demo_as_json(const DemoArm& without, const DemoArm& with);

}  // namespace sami::lab
