// The QEMU gate: beside the hypervisors it watches the QMP monitors of the configured VMs at every server where they
// may run, notifies the entity of what happens to them, and does with their migrations what the gate machine says.
//
// Threading: everything on the owner's loop. Nothing blocks but the entity's journal.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/log.h"
#include "runtime/loop.h"
#include "tde/entity.h"

namespace sami::tde::qemu {

struct VirtualMachine {
  std::string subject_id;
  std::map<std::string, std::string> sockets;  // server -> path of a QMP socket that is the gate's alone
};

struct Config {
  std::int64_t precopy_bandwidth = 1024 * 1024;  // see monitor.h
  std::int64_t full_bandwidth = 0;
  std::vector<VirtualMachine> virtual_machines;
};

class Gate {
 public:
  // gate: deadlines and policy. entity and loop outlive this.
  Gate(const Config& config, const protocol::GateConfig& gate, Entity& entity, Loop& loop, Log log);
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Once, after the entity was started: takes over the moves that are open.
  void start();

 private:
  class Vm;
  std::vector<std::unique_ptr<Vm>> vms_;
};

}  // namespace sami::tde::qemu
