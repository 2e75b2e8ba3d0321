// The shells of the simulator: what som/, soa/ and tde/ are to the daemons. Each wraps the machine that ships, keeps
// its journal in memory, and may die, restart or fail to write at any step, as protocol/machine.h says.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>

#include "protocol/gate.h"
#include "protocol/soa.h"
#include "protocol/som.h"
#include "tests/sim/engine.h"
#include "tests/sim/fake_driver.h"
#include "tests/sim/network.h"

namespace sami::sim {

class World;

class Process {
 public:
  Process(World& world, std::string name);
  virtual ~Process() = default;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  const std::string name;
  JournalImage journal;
  virtual bool up() const = 0;  // it runs and has a machine
  void start();
  void crash(Duration down);  // kill -9
  void fill_disk(Duration until_freed);

 protected:
  enum class CrashPoint { None, BeforeCommit, AfterCommit, Midway };
  CrashPoint draw_crash();
  void die() { crash(engine_.delay_ms(1, 2000)); }
  // Each write durable, or none: then the machine is forgotten and built again later.
  bool commit(const std::vector<JournalWrite>& writes);
  void arm();

  virtual void build() = 0;  // the machine, from the journal; feeds it its first event
  virtual void forget(bool process_died) = 0;
  virtual void journal_unavailable() {}  // the second failure in a row
  virtual Instant next_deadline() const = 0;
  virtual void tick() = 0;

  World& world_;
  Engine& engine_;
  std::uint64_t life_ = 0;     // of the process
  std::uint64_t machine_ = 0;  // of the machine within it

 private:
  void rebuild_after(Duration delay);
  std::uint32_t failures_ = 0;
  Instant disk_full_until_{0};
  Instant armed_ = Instant::never();
};

class Agent final : public Process {
 public:
  Agent(World& world, std::string host);

  FakeHost kernel;
  std::unique_ptr<FakeConnections> connections;
  std::unique_ptr<FakeCounters> counters;
  Link* link = nullptr;

  bool up() const override { return soa_.has_value(); }
  void reboot(Duration down);  // the kernel forgets, too
  void connected();
  void disconnected();
  void take(const if_m_a::v1::MasterMessage& message);
  const protocol::Soa* machine() const { return soa_ ? &*soa_ : nullptr; }
  bool idle() const;  // no driver call waits or runs
  // A call as if the machine had made it; for mutations.
  void enqueue(protocol::DriverCall call);

 private:
  struct Lane {
    std::deque<protocol::DriverCall> waiting;
    std::uint32_t running = 0;
  };
  protocol::SoaConfig config() const;
  void build() override;
  void forget(bool process_died) override;
  void journal_unavailable() override;
  Instant next_deadline() const override { return soa_ ? soa_->next_deadline() : Instant::never(); }
  void tick() override { apply(protocol::soa_event::Tick{}); }
  void apply(protocol::SoaEvent event);
  void run_next(const std::string& state_class);
  void run(const protocol::DriverCall& call);
  protocol::DriverReply perform(const protocol::DriverCall& call);
  void send(const if_m_a::v1::AgentMessage& message);
  void make_drivers();

  std::optional<protocol::Soa> soa_;
  std::map<std::string, Lane> lanes_;
  bool connected_ = false;
};

class Master final : public Process {
 public:
  explicit Master(World& world);

  std::map<std::string, Link*> agent_links;
  Link* tde_link = nullptr;

  bool up() const override { return som_.has_value(); }
  void apply(protocol::SomEvent event);
  const protocol::Som* machine() const { return som_ ? &*som_ : nullptr; }
  static protocol::SomConfig config(const Settings& settings);

 private:
  void build() override;
  void forget(bool process_died) override;
  Instant next_deadline() const override;
  void tick() override;
  void send(const protocol::SomStep::ToAgent& message);
  void send(const protocol::SomStep::ToTde& message);

  std::optional<protocol::Som> som_;
};

class Entity final : public Process {
 public:
  explicit Entity(World& world);

  Link* link = nullptr;
  std::map<std::string, std::size_t> places;  // VM -> server, as this TDE knows it; durable

  bool up() const override { return gate_.has_value(); }
  // False: nobody heard it.
  bool report(protocol::GateEvent event);
  void connected();
  void disconnected();
  void take(const if_m_t::v1::MasterMessage& message);
  const protocol::Gate* machine() const { return gate_ ? &*gate_ : nullptr; }

 private:
  protocol::GateConfig config() const;
  void build() override;
  void forget(bool process_died) override;
  void journal_unavailable() override;
  Instant next_deadline() const override { return gate_ ? gate_->next_deadline() : Instant::never(); }
  void tick() override { apply(protocol::gate_event::Tick{}); }
  bool apply(protocol::GateEvent event);
  void send(const if_m_t::v1::TdeMessage& message);
  void send_inventory();

  std::optional<protocol::Gate> gate_;
  bool connected_ = false;
  bool authorized_ = false;
};

}  // namespace sami::sim
