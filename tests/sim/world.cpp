#include "tests/sim/world.h"

#include <fmt/format.h>

#include <algorithm>

namespace sami::sim {

namespace {
constexpr Address vm_addresses = 0x0a000001;              // 10.0.0.1 ...
constexpr Address peer_addresses = 0xc0000201;            // 192.0.2.1 ...
constexpr std::uint32_t pickup_translation = 0xffff;      // what an entry made in the middle of a translated flow says
constexpr Duration patience = std::chrono::seconds(240);  // from heal to quiet

common::v1::Prefix exactly(Address address) {
  common::v1::Prefix prefix;
  prefix.set_address(octets(address));
  prefix.set_length(32);
  return prefix;
}
}  // namespace

World::World(std::uint64_t seed, Mutation its_mutation, bool tracing) : engine(seed, tracing), mutation(its_mutation) {
  provoke(mutation, engine.settings);
  checker = std::make_unique<Checker>(*this);
  hypervisor = std::make_unique<Hypervisor>(*this);
  make_topology();
  master = std::make_unique<Master>(*this);
  entity = std::make_unique<Entity>(*this);
  for (const auto& vm : vms) entity->places[vm.name] = vm.server;
  make_links();
  if (engine.settings.foreign_entries) plant_foreign_entries();
}

World::~World() = default;

// Firewalls side by side; with a NAT behind them in a context per server, or in one; or one firewall with two contexts.
void World::make_topology() {
  Random& random = engine.random;
  const std::size_t hosts = 2 + random.below(3);
  const std::uint64_t layout = random.below(hosts > 2 ? 4 : 2);
  for (std::size_t i = 0; i < hosts; ++i) agents.push_back(std::make_unique<Agent>(*this, "fw" + std::to_string(i)));
  const std::size_t count = layout < 2 ? hosts : hosts - 1;
  for (std::size_t i = 0; i < count; ++i) {
    Server server{"s" + std::to_string(i), {}};
    if (layout == 1) {
      server.path = {{agents[i / 2]->name, i % 2 == 0 ? "default" : "inside"}};
    } else {
      server.path = {{agents[i]->name, "default"}};
    }
    if (layout == 2) server.path.push_back({agents.back()->name, "vn" + std::to_string(i)});
    if (layout == 3) server.path.push_back({agents.back()->name, "default"});
    for (const auto& hop : server.path) agent(hop.host).kernel.contexts[hop.context];
    servers.push_back(std::move(server));
  }
  for (auto& agent : agents) {
    agent->kernel.contexts["default"];
    if (engine.settings.small_tables && random.chance(500)) agent->kernel.capacity = 3 + random.below(10);
  }
  const std::size_t machines = 1 + random.below(3);
  for (std::size_t i = 0; i < machines; ++i) {
    Vm& vm = vms.emplace_back();
    vm.name = "vm" + std::to_string(i);
    vm.address = vm_addresses + static_cast<Address>(i);
    vm.server = random.below(servers.size());
  }
}

void World::make_links() {
  for (auto& each : agents) {
    Agent& client = *each;
    const std::string host = client.name;
    links_.push_back(std::make_unique<Link>(
        engine, host + "-som",
        Link::End{[&client] { return client.up(); }, [&client] { client.connected(); },
                  [&client] { client.disconnected(); }},
        Link::End{[this] { return master->up(); },
                  [this, host] { master->apply(protocol::som_event::AgentConnected{host}); },
                  [this, host] { master->apply(protocol::som_event::AgentDisconnected{host}); }}));
    client.link = links_.back().get();
    master->agent_links[host] = client.link;
  }
  links_.push_back(std::make_unique<Link>(
      engine, "tde-som",
      Link::End{[this] { return entity->up(); }, [this] { entity->connected(); }, [this] { entity->disconnected(); }},
      Link::End{[this] { return master->up(); }, [this] { master->apply(protocol::som_event::TdeConnected{"tde"}); },
                [this] { master->apply(protocol::som_event::TdeDisconnected{"tde"}); }}));
  entity->link = master->tde_link = links_.back().get();
}

Agent& World::agent(const std::string& host) {
  return **std::find_if(agents.begin(), agents.end(), [&](const auto& agent) { return agent->name == host; });
}

Vm* World::vm(const std::string& name) {
  const auto found = std::find_if(vms.begin(), vms.end(), [&](const Vm& vm) { return vm.name == name; });
  return found == vms.end() ? nullptr : &*found;
}

common::v1::Subject World::subject(const Vm& vm) const {
  common::v1::Subject subject;
  subject.set_id(vm.name);
  subject.set_kind(common::v1::SUBJECT_KIND_VM);
  auto& nic = *subject.add_interfaces();
  nic.set_vn_name("vn1");
  nic.add_addresses(octets(vm.address));
  return subject;
}

std::vector<Hop> World::path(const Flow& flow, std::size_t index, std::size_t server) const {
  std::vector<Hop> hops = servers[server].path;
  if (flow.peer_vm < 0) return hops;
  const std::size_t other = flow.vm == index ? static_cast<std::size_t>(flow.peer_vm) : flow.vm;
  for (const auto& hop : servers[vms[other].server].path) {
    if (std::find(hops.begin(), hops.end(), hop) == hops.end()) hops.push_back(hop);
  }
  return hops;
}

std::vector<Hop> World::path(const Flow& flow) const { return path(flow, flow.vm, vms[flow.vm].server); }

// By class of peers: those outside, and each other VM.
std::vector<common::v1::Transfer> World::plan(std::size_t index, std::size_t from, std::size_t to) const {
  std::vector<common::v1::Transfer> transfers;
  const auto add = [&](const Hop& source, const Hop& destination, bool retained, std::ptrdiff_t peer) {
    auto& transfer = transfers.emplace_back();
    transfer.set_index(static_cast<std::uint32_t>(transfers.size() - 1));
    transfer.set_source_host(source.host);
    transfer.set_source_context(source.context);
    transfer.set_destination_host(destination.host);
    transfer.set_destination_context(destination.context);
    transfer.set_disposition(retained ? common::v1::DISPOSITION_COPY_AND_RETAIN : common::v1::DISPOSITION_MOVE);
    if (peer >= 0) {
      *transfer.mutable_peers()->add_include() = exactly(vms[static_cast<std::size_t>(peer)].address);
      return;
    }
    for (std::size_t other = 0; other < vms.size(); ++other) {
      if (other != index) *transfer.mutable_peers()->add_exclude() = exactly(vms[other].address);
    }
  };
  for (std::ptrdiff_t peer = -1; peer < static_cast<std::ptrdiff_t>(vms.size()); ++peer) {
    if (peer == static_cast<std::ptrdiff_t>(index)) continue;
    Flow flow;
    flow.vm = index;
    flow.peer_vm = peer;
    const auto before = path(flow, index, from);
    const auto after = path(flow, index, to);
    const auto lacks = [](const std::vector<Hop>& hops, const Hop& hop) {
      return std::find(hops.begin(), hops.end(), hop) == hops.end();
    };
    std::vector<Hop> lost;
    std::vector<Hop> gained;
    std::copy_if(before.begin(), before.end(), std::back_inserter(lost),
                 [&](const Hop& hop) { return lacks(after, hop); });
    std::copy_if(after.begin(), after.end(), std::back_inserter(gained),
                 [&](const Hop& hop) { return lacks(before, hop); });
    for (std::size_t i = 0; i < gained.size(); ++i) {
      const bool moves = i < lost.size();
      add(moves ? lost[i] : before.front(), gained[i], !moves, peer);
    }
    for (std::size_t i = gained.size(); i < lost.size() && !after.empty(); ++i) {
      add(lost[i], after.front(), false, peer);
      transfers.back().set_leftover(true);
    }
  }
  return transfers;
}

// ---- traffic

bool World::packet(Flow& flow, const std::vector<Hop>& hops, bool opens, bool new_version) {
  const state::Key key = key_of(flow.connection);
  for (const auto& hop : hops) {
    FakeHost& kernel = agent(hop.host).kernel;
    for (const std::size_t end : {flow.vm, static_cast<std::size_t>(flow.peer_vm)}) {
      if (end < vms.size() && kernel.barrier_up(hop.context, vms[end].name, engine.now)) return false;
    }
    const Context& tables = kernel.contexts.at(hop.context);
    if (!opens && !tables.connections.contains(key) && !engine.settings.pickup) return false;
  }
  if (new_version) ++flow.connection.version;
  for (const auto& hop : hops) {
    FakeHost& kernel = agent(hop.host).kernel;
    Context& tables = kernel.contexts.at(hop.context);
    auto [entry, fresh] = tables.connections.try_emplace(key, flow.connection);
    if (fresh) {
      entry->second.born = engine.now;
      if (!opens && flow.connection.translation != 0) entry->second.translation = pickup_translation;
    }
    const bool altered = fresh || entry->second.version != flow.connection.version;
    entry->second.version = flow.connection.version;
    if (altered) kernel.changed(connections_class, hop.context, key);
    if (flow.peer_vm >= 0) continue;  // a counter has no peer: those between VMs are not counted
    ++tables.counters[counter_key(vms[flow.vm].address)].own;
    kernel.changed(counters_class, hop.context, counter_key(vms[flow.vm].address));
  }
  if (!hops.empty()) ++vms[flow.vm].packets;
  return true;
}

void World::open_flow(std::size_t index) {
  Random& random = engine.random;
  Flow flow;
  flow.vm = index;
  flow.peer = peer_addresses + static_cast<Address>(random.below(8));
  if (vms.size() > 1 && random.chance(300)) {
    std::size_t other = random.below(vms.size() - 1);
    if (other >= index) ++other;
    flow.peer_vm = static_cast<std::ptrdiff_t>(other);
    flow.peer = vms[other].address;
    flow.unchecked = hypervisor->in_motion(index) || hypervisor->in_motion(other);
    if (!vms[other].running) return;
  }
  const bool inbound = !vms[index].running || random.chance(400);
  flow.opened_while_paused = !vms[index].running;
  flow.connection.first = inbound ? flow.peer : vms[index].address;
  flow.connection.second = inbound ? vms[index].address : flow.peer;
  flow.connection.port = next_port_++;
  flow.connection.translation = flow.peer_vm < 0 && random.chance(500) ? flow.connection.port + 20000 : 0;
  flow.connection.version = 1;
  if (packet(flow, path(flow), true, false)) flows.push_back(flow);
}

// One thing that one of the flows does.
void World::traffic() {
  Random& random = engine.random;
  engine.after(engine.delay_ms(30, engine.healed ? 400 : 150), [this] { traffic(); });
  const std::size_t index = random.below(vms.size());
  std::vector<std::size_t> mine;
  for (std::size_t i = 0; i < flows.size(); ++i) {
    if (flows[i].alive && flows[i].vm == index) mine.push_back(i);
  }
  if (mine.size() < 2 || (mine.size() < 12 && random.chance(250))) return open_flow(index);
  Flow& flow = flows[random.pick(mine)];
  const bool peer_can = flow.peer_vm < 0 || vms[static_cast<std::size_t>(flow.peer_vm)].running;
  if (!vms[index].running && !peer_can) return;
  const auto hops = path(flow);
  if (!random.chance(150)) {
    packet(flow, hops, false, random.chance(600));
    return;
  }
  if (!packet(flow, hops, false, true)) return;  // the last packet: the entries end
  flow.alive = false;
  for (const auto& hop : hops) {
    FakeHost& kernel = agent(hop.host).kernel;
    kernel.contexts.at(hop.context).connections.erase(key_of(flow.connection));
    kernel.changed(connections_class, hop.context, key_of(flow.connection));
  }
}

void World::stray_packets(std::size_t index, std::size_t from) {
  for (std::size_t i = 0; i < 2; ++i) {
    engine.after(engine.delay_ms(0, 500), [this, index, from] {
      std::vector<std::size_t> mine;
      for (std::size_t f = 0; f < flows.size(); ++f) {
        if (flows[f].alive && flows[f].vm == index && flows[f].peer_vm < 0 && !flows[f].unchecked) mine.push_back(f);
      }
      if (mine.empty() || vms[index].server == from) return;
      Flow flow = flows[engine.random.pick(mine)];  // a copy: it tells nobody anything
      packet(flow, servers[from].path, false, false);
    });
  }
}

// Entries that are none of SAMI's business, and some that stand in the way.
void World::plant_foreign_entries() {
  Random& random = engine.random;
  for (auto& agent : agents) {
    for (auto& [context, tables] : agent->kernel.contexts) {
      for (std::size_t i = random.below(4); i > 0; --i) {
        Connection other;
        other.first = 0x0a000064 + static_cast<Address>(random.below(10));
        other.second = peer_addresses + static_cast<Address>(random.below(8));
        other.port = static_cast<std::uint32_t>(random.below(1000));
        other.born = Instant{engine.now.nanoseconds - std::chrono::nanoseconds(std::chrono::hours(1)).count()};
        if (random.chance(250)) {  // the key of a flow that a VM may open later
          other.first = vm_addresses + static_cast<Address>(random.below(vms.size()));
          other.port = 1000 + static_cast<std::uint32_t>(random.below(30));
          other.translation = 7;
        }
        tables.connections[key_of(other)] = other;
      }
    }
  }
}

void World::tamper(const Agent&, if_m_a::v1::UploadState& upload) {
  if (!engine.fault(engine.settings.hostile_agent)) return;
  Random& random = engine.random;
  if_m_a::v1::StateChunk chunk;
  if (random.chance(300) || !chunk.ParseFromString(upload.chunk())) {
    upload.set_chunk(std::string(random.below(64), static_cast<char>(random.below(256))));
    return;
  }
  if (random.chance(300)) {
    upload.mutable_transfer()->set_epoch(upload.transfer().epoch() - 1);
    return;
  }
  Connection foreign;
  foreign.first = 0x0a000064 + static_cast<Address>(random.below(10));
  foreign.second = peer_addresses;
  foreign.port = static_cast<std::uint32_t>(random.below(100));
  auto& record = *chunk.add_records();
  record.set_key(key_of(foreign));
  record.set_body(encode(foreign));
  record.set_gone(random.chance(200));
  if (chunk.state_class().empty()) chunk.set_state_class(std::string(connections_class));
  upload.set_chunk(chunk.SerializeAsString());
}

// ---- the run

void World::faults() {
  if (engine.healed) return;
  const Settings& settings = engine.settings;
  Random& random = engine.random;
  engine.after(milliseconds(250), [this] { faults(); });
  for (auto& link : links_) {
    if (engine.fault(settings.cut)) link->cut(engine.delay_ms(0, 2500));
  }
  std::vector<Process*> processes = {master.get(), entity.get()};
  for (auto& agent : agents) processes.push_back(agent.get());
  for (Process* process : processes) {
    if (engine.fault(settings.disk_full)) process->fill_disk(engine.delay_ms(50, 2000));
    if (process->up() && engine.fault(settings.crash)) process->crash(engine.delay_ms(1, 3000));
  }
  for (auto& agent : agents) {
    if (agent->up() && engine.fault(settings.overrun))
      (random.chance(500) ? static_cast<FakeDriver&>(*agent->connections) : *agent->counters).overrun();
    if (agent->up() && engine.fault(settings.reboot)) agent->reboot(engine.delay_ms(100, 2000));
  }
  if (!settings.operators || !master->up()) return;
  for (const auto& [id, migration] : checker->migrations()) {
    if (migration.state() == protocol::journal::IN_DOUBT) {
      const Move* move = hypervisor->find(migration.notification_id());
      if (move == nullptr || (move->phase != Phase::AtSource && move->phase != Phase::AtDestination) ||
          !random.chance(300))
        continue;
      checker->operator_resolved(id);
      master->apply(protocol::som_event::Resolve{
          1, id, move->phase == Phase::AtSource ? common::v1::OUTCOME_AT_SOURCE : common::v1::OUTCOME_AT_DESTINATION,
          "operator"});
      return;
    }
    if (!random.chance(20)) continue;
    if (random.chance(500)) {
      master->apply(protocol::som_event::Abort{2, id, "operator", "maintenance"});
    } else {
      master->apply(protocol::som_event::Force{3, id, "operator"});
    }
    return;
  }
}

void World::heal() {
  engine.healed = true;
  engine.record("healed");
  if (engine.tracing()) engine.trace("---- healed");
  hypervisor->heal();
}

bool World::settled() const { return engine.healed && checker->leftovers().empty(); }

void World::run() {
  master->start();
  entity->start();
  for (auto& agent : agents) agent->start();
  for (auto& link : links_) link->start();
  for (std::size_t i = 0; i < vms.size() * 4; ++i) open_flow(i % vms.size());
  traffic();
  faults();
  const std::int64_t moves = engine.random.between(1, 3);
  for (std::int64_t i = 0; i < moves; ++i) {
    engine.after(engine.delay_ms(300, 6000), [this] { hypervisor->begin_some_move(); });
  }
  const std::function<void()> look = [&] {
    hypervisor->notice();
    engine.after(milliseconds(700), look);
  };
  engine.after(milliseconds(700), look);
  engine.after(engine.settings.fault_phase, [this] { heal(); });
  const Instant end = engine.now + engine.settings.fault_phase + patience;
  bool done = false;
  const std::function<void()> check = [&] {
    done = settled();
    engine.after(milliseconds(500), check);
  };
  engine.after(engine.settings.fault_phase + milliseconds(500), check);
  while (!done) {
    engine.run_one();
    if (engine.now <= end) continue;
    const std::string barrier = checker->barriers();
    throw Broken{barrier.empty() ? 8 : 2, "it does not end: " + checker->leftovers()};
  }
  checker->at_end();
}

}  // namespace sami::sim
