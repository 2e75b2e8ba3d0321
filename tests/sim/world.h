// One seed's world: servers with VMs, State Hosts on their paths, the daemons and the links between them, traffic.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/sim/checkers.h"
#include "tests/sim/hypervisor.h"
#include "tests/sim/mutations.h"
#include "tests/sim/process.h"

namespace sami::sim {

struct Server {
  std::string name;
  std::vector<Hop> path;
};

struct Flow {
  std::size_t vm = 0;
  Address peer = 0;
  std::ptrdiff_t peer_vm = -1;  // the other end is a VM, too
  Connection connection;        // as the ends know it
  bool alive = true;
  bool unchecked = false;  // an end moves while the other does, too: a plan made in between is not right
  bool opened_while_paused = false;
};

struct Vm {
  std::string name;
  Address address = 0;
  std::size_t server = 0;  // where it runs, or ran before the pause
  bool running = true;
  Instant arrived;                  // where it is
  std::uint64_t packets = 0;        // that crossed a State Host
  bool counters_disturbed = false;  // a migration lost something: sums need not be right any more
};

class World {
 public:
  World(std::uint64_t seed, Mutation mutation, bool tracing);
  ~World();
  // Throws Broken. Ends when the world is healed and quiet, or not quiet in time.
  void run();

  Engine engine;
  const Mutation mutation;
  std::vector<Server> servers;
  std::vector<Vm> vms;
  std::vector<Flow> flows;
  std::unique_ptr<Checker> checker;
  std::unique_ptr<Hypervisor> hypervisor;
  std::unique_ptr<Master> master;
  std::unique_ptr<Entity> entity;
  std::vector<std::unique_ptr<Agent>> agents;

  Agent& agent(const std::string& host);
  Vm* vm(const std::string& name);
  common::v1::Subject subject(const Vm& vm) const;
  // The State Hosts between the VM, if it were on `server`, and the other end.
  std::vector<Hop> path(const Flow& flow, std::size_t vm, std::size_t server) const;
  std::vector<Hop> path(const Flow& flow) const;
  // What a move needs, as a TDE finds it.
  std::vector<common::v1::Transfer> plan(std::size_t vm, std::size_t from, std::size_t to) const;
  // One packet of the flow along these hosts. False: it did not get through.
  bool packet(Flow& flow, const std::vector<Hop>& hops, bool opens, bool new_version);
  // Packets that were under way when the VM left.
  void stray_packets(std::size_t vm, std::size_t from);
  // A hostile agent sends something else.
  void tamper(const Agent& agent, if_m_a::v1::UploadState& upload);

 private:
  void make_topology();
  void make_links();
  void plant_foreign_entries();
  void traffic();
  void open_flow(std::size_t vm);
  void faults();
  void heal();
  bool settled() const;
  std::vector<std::unique_ptr<Link>> links_;
  std::uint32_t next_port_ = 1000;
};

// For traces.
std::string describe(const if_m_a::v1::AgentMessage& message);
std::string describe(const if_m_a::v1::MasterMessage& message);
std::string describe(const if_m_t::v1::TdeMessage& message);
std::string describe(const if_m_t::v1::MasterMessage& message);
std::string describe(const protocol::DriverCall& call, const protocol::DriverReply& reply);
std::string readable(const state::Key& key);

}  // namespace sami::sim
