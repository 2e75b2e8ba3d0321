// What the three protocol machines (som.h, soa.h, gate.h) have in common.
//
// A machine is pure: no I/O, clock, thread or randomness of its own. A shell (a daemon, or the simulator) feeds it one
// event at a time together with the present Instant and then carries out what the step returned, in this order:
//   1. all journal writes, as ONE durable transaction. If that fails the shell discards the whole step, forgets the
//      machine, drops its connections and starts again from what the journal holds: a failed write is a crash.
//   2. messages and calls, in order. They may be lost; the machine repeats what matters.
//   3. it wakes the machine with Tick at next_deadline().
// So whatever a peer has seen was journaled before. A machine never throws and asserts only on programmer errors;
// whatever comes from a peer is checked and, if wrong, answered or ignored.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/clock.h"
#include "runtime/journal.h"

namespace sami::protocol {

// The journal is a map from key to value, kept by the shell. Keys are printable, '/'-separated.
using sami::JournalImage;
using sami::JournalWrite;

// One line of the audit trail: what happened to a subject's flows, when, and why. The shell adds wall time.
struct AuditEntry {
  std::string migration_id;
  std::string subject_id;
  std::string event;    // a word from the list in docs/audit.md: "state", "vote", "outcome", "operator", ...
  std::string detail;   // one sentence
};

}  // namespace sami::protocol
