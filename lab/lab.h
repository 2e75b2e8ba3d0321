// A running lab: use case 1 in network namespaces, with its VMs' places, and (unless told otherwise) the daemons of
// SAMI in it. Everything is in one folder, every namespace is named after the lab: labs do not meet.
//
// Threading: one object per lab and thread. Every call blocks: up and down for up to some seconds, the rest for
// milliseconds. Needs root.
#pragma once

#include <string>
#include <vector>

#include "lab/store.h"
#include "lab/usecase1.h"

namespace sami::lab {

struct LabOptions {
  std::string name = "usecase1";  // 1..24 of a-z, 0-9 and '-'
  Nat nat = Nat::None;
  bool qemu = false;              // vm1 is a guest of real QEMUs (lab/qemu.h), started by whoever wants it
  std::string gate;               // see store.h
  bool with_sami = true;
  std::string binaries;  // folder with the daemons; empty: where this program is
};

// $SAMI_LAB_FOLDER, else /run/sami-lab.
std::string labs_folder();
// The folder of the running program.
std::string programs_folder();

class Lab {
 public:
  // Builds it, or leaves nothing behind. Errors: InvalidInput (bad name, name taken), Failed.
  static Result<Lab> up(const LabOptions& options);
  // Errors: InvalidInput (no such lab), Corrupt.
  static Result<Lab> open(const std::string& name);
  // Ends the daemons it started and removes namespaces and folder, also what a failed or killed `up` left. Continues
  // past failures and returns the first. A lab that does not exist is an error (InvalidInput).
  static Result<void> down(const std::string& name);
  static std::vector<std::string> list();

  const LabState& state() const { return state_; }
  const Topology& topology() const { return topology_; }
  std::string folder() const;
  std::string binaries() const { return binaries_; }
  std::string namespace_of(const std::string& node) const;

  // InvalidInput when there is no such VM, or it cannot run there.
  Result<LabVm> find_vm(const std::string& vm) const;
  Result<LabVm::Placement> placement(const std::string& vm, const std::string& server) const;
  std::string place_of(const std::string& vm) const;

  // The mechanics of a live migration, each idempotent. None of them tells SAMI anything.
  Result<void> detach(const std::string& vm);                             // its ports go down everywhere
  Result<void> attach(const std::string& vm, const std::string& server);  // its port there goes up, its place is there
  Result<void> announce(const std::string& vm, const std::string& server);  // the firewall there draws its traffic
  Result<void> withdraw(const std::string& vm, const std::string& server);  // the firewall there sends it on

  // The core drops so many percent of the packets it forwards, at random.
  Result<void> set_loss(int percent);

  // Daemons by name ("som1", "fw1", "fw2", "tde1"). start waits until its control socket says it is ready.
  Result<DaemonRecord> daemon(const std::string& name) const;
  Result<void> start_daemon(const std::string& name);
  Result<void> kill_daemon(const std::string& name, int signal);  // returns when it has ended

 private:
  Lab(LabState state, std::string binaries);
  Result<void> build();
  Result<void> save_state() const;

  LabState state_;
  Topology topology_;
  std::string binaries_;
};

}  // namespace sami::lab
