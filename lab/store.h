// What a lab remembers about itself between commands: one JSON file in its folder. Not thread-safe.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lab/process.h"
#include "lab/usecase1.h"
#include "runtime/result.h"

namespace sami::lab {

struct DaemonRecord {
  std::string name;     // "som1", "fw1", "fw2", "tde1": as in its certificate
  std::string program;  // "sami-som", ...
  std::string node;
  std::string config;
  std::string control_socket;
  std::string log;
  ProcessIdentity process;  // pid 0: not running
};

struct LabState {
  std::string name;
  std::string usecase = "usecase1";
  Nat nat = Nat::None;
  bool qemu = false;      // vm1 is a guest of real QEMUs
  std::string gate;       // section of the TDE's configuration; empty: the lab's own
  bool with_sami = false;
  bool complete = false;  // false: up has not finished (or died)
  std::vector<std::string> nodes;
  std::map<std::string, std::string> places;  // VM -> server
  std::vector<DaemonRecord> daemons;
};

// Errors: Failed (cannot write). The file is replaced as a whole or not at all.
Result<void> save(const LabState& state, const std::string& file);
// Errors: InvalidInput (no such file), Corrupt (what, where, what was expected).
Result<LabState> load(const std::string& file);

}  // namespace sami::lab
