#include "lab/usecase1.h"

#include <fmt/format.h>

#include <array>

namespace sami::lab {
namespace {

constexpr std::array<std::pair<Nat, std::string_view>, 6> kNatNames{{{Nat::None, "none"},
                                                                     {Nat::Snat, "snat"},
                                                                     {Nat::Dnat, "dnat"},
                                                                     {Nat::Both, "both"},
                                                                     {Nat::Masquerade, "masquerade"},
                                                                     {Nat::Shared, "shared"}}};

constexpr const char* kVm1 = "10.1.1.10";
constexpr const char* kVm1External = "198.51.100.10";
constexpr const char* kVm2 = "10.1.2.20";
constexpr const char* kVm2External = "198.51.100.20";
constexpr const char* kVm3 = "10.9.3.30";
constexpr const char* kService = "203.0.113.80";
constexpr const char* kCore = "198.51.100.254";
constexpr const char* kGatewayMac = "02:00:00:00:01:01";
constexpr const char* kVm1Mac = "02:00:00:00:01:10";
constexpr const char* kVm2Mac = "02:00:00:00:02:20";
constexpr const char* kVm3Mac = "02:00:00:00:03:30";
constexpr int kForwardedPort = 8001;

bool routes_inside_addresses(Nat nat) { return nat == Nat::None || nat == Nat::Dnat; }
bool has_external_address(Nat nat) { return nat != Nat::None && nat != Nat::Shared; }

std::string own_external(const std::string& firewall) { return firewall == "fw1" ? "198.51.100.1" : "198.51.100.2"; }

std::string translation_rules(Nat nat, const std::string& firewall) {
  std::string prerouting;
  std::string postrouting;
  const std::string outside = R"(oifname "ext*" ip saddr 10.1.0.0/16 ip daddr != 10.1.0.0/16 )";
  if (nat == Nat::Dnat || nat == Nat::Both) {
    for (const char* protocol : {"tcp", "udp"}) {
      prerouting += fmt::format("    iifname \"ext*\" ip daddr {} {} dport {} dnat ip to {}:{}\n", kVm1External,
                                protocol, kForwardedPort, kVm1, usecase1::kServicePort);
    }
  }
  if (nat == Nat::Both) prerouting += fmt::format("    iifname \"in*\" ip daddr {} dnat ip to {}\n", kService, kVm3);
  if (nat == Nat::Masquerade) postrouting += fmt::format("    {}ip saddr {} masquerade random\n", outside, kVm1);
  if (nat == Nat::Shared) {
    postrouting += fmt::format("    {}ip saddr {} snat ip to {} random\n", outside, kVm1, own_external(firewall));
  }
  if (nat == Nat::Snat || nat == Nat::Both) {
    postrouting += fmt::format("    {}ip saddr {} snat ip to {} random\n", outside, kVm1, kVm1External);
  }
  if (!routes_inside_addresses(nat)) {
    postrouting += fmt::format("    {}ip saddr {} snat ip to {} random\n", outside, kVm2, kVm2External);
  }
  return fmt::format(R"(
  chain prerouting {{
    type nat hook prerouting priority dstnat;
{}  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
{}  }}
)",
                     prerouting, postrouting);
}

// The policy of both firewalls: what is inside may open connections, outside only what is forwarded to the inside.
std::string firewall_ruleset(const Usecase1Options& options, const std::string& firewall) {
  const std::string service = options.qemu
                                  ? fmt::format("    iifname \"ext*\" ip daddr {} th dport {} ct state new accept\n",
                                                kVm1, usecase1::kServicePort)
                                  : "";
  return R"(table inet fw {
  counter invalid {}
  counter new_dropped {}
  counter input_dropped {}
  chain management_in {
    type filter hook prerouting priority raw;
    iifname { "mgmt0", "lo" } notrack
  }
  chain management_out {
    type filter hook output priority raw;
    oifname { "mgmt0", "lo" } notrack
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state invalid counter name invalid drop
    ct state established,related accept
    meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn counter name new_dropped drop
    iifname "in*" ct state new accept
)" + service +
         R"(    iifname "ext*" ip saddr 10.1.0.0/16 ip daddr 10.1.0.0/16 ct state new accept
    iifname "ext*" ct state new ct status dnat accept
    counter name new_dropped drop
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname { "mgmt0", "lo" } accept
    ct state invalid counter name invalid drop
    ct state established,related accept
    meta l4proto icmp accept
    counter name input_dropped drop
  }
)" + translation_rules(options.nat, firewall) +
         "}\n";
}

Node firewall(const std::string& name, const Usecase1Options& options) {
  Node node;
  node.name = name;
  node.role = "firewall";
  node.settings = {{"net.ipv4.ip_forward", "1"},
                   {"net.ipv4.conf.all.arp_ignore", "1"},
                   {"net.ipv4.conf.all.arp_announce", "2"},
                   {"net.ipv4.conf.ext0.proxy_arp", "1"},
                   {"net.ipv4.neigh.ext0.proxy_delay", "0"},
                   {"net.netfilter.nf_conntrack_tcp_loose", "0"}};
  // As a fabric that knows its endpoints does: no ARP is needed, and none is lost, when vm1 arrives.
  node.commands = {fmt::format("route add default via {}", kCore),
                   fmt::format("neighbour replace {} lladdr {} dev in0 nud permanent", kVm1, kVm1Mac)};
  if (name == "fw2") node.commands.push_back("route add 10.1.2.0/24 via 198.51.100.1");
  if (options.nat == Nat::Masquerade) {
    node.commands.push_back(fmt::format("rule add priority 100 from {} to 10.1.0.0/16 lookup main", kVm1));
    node.commands.push_back(fmt::format("rule add priority 110 from {} lookup 110", kVm1));
  }
  node.ruleset = firewall_ruleset(options, name);
  return node;
}

// taps: made for QEMU on br0.
Node server(const std::string& name, std::vector<Bridge> bridges, const std::vector<std::string>& taps = {}) {
  Node node;
  node.name = name;
  node.role = "server";
  node.bridges = std::move(bridges);
  for (const auto& tap : taps) {
    node.commands.push_back(fmt::format("tuntap add dev {} mode tap", tap));
    node.commands.push_back(fmt::format("link set {} master br0 up", tap));
  }
  return node;
}

// A VM's NIC reaches every server the VM may run on; only the port of the one where it is attached is up.
Node vm(const std::string& name, const std::string& address, const std::string& mac, const std::string& gateway) {
  Node node;
  node.name = name;
  node.role = "virtual machine";
  node.bridges = {{"eth0", mac, {address + "/24"}}};
  node.commands = {fmt::format("route add default via {}", gateway)};
  return node;
}

Node core(Nat nat) {
  Node node;
  node.name = "core";
  node.role = "router";
  node.bridges = {{"ext0", "", {std::string(kCore) + "/24"}}};
  node.settings = {{"net.ipv4.ip_forward", "1"}};
  if (routes_inside_addresses(nat)) {
    node.commands = {"route add 10.1.1.0/24 dev ext0", "route add 10.1.2.0/24 via 198.51.100.1"};
  }
  node.ruleset = usecase1::loss_ruleset(0);
  return node;
}

std::vector<Link> links(const Usecase1Options& options) {
  const Nat nat = options.nat;
  std::vector<Link> all{
      {{"vm2", "nic1", "", {}, "eth0"}, {"server1", "tap1", "", {}, "br1"}},
      {{"vm3", "nic1", "", {}, "eth0"}, {"server3", "tap0", "", {}, "br0"}},
      {{"fw1", "in0", kGatewayMac, {"10.1.1.1/24"}, ""}, {"server1", "up0", "", {}, "br0"}},
      {{"fw1", "in1", "", {"10.1.2.1/24"}, ""}, {"server1", "up1", "", {}, "br1"}},
      {{"fw2", "in0", kGatewayMac, {"10.1.1.1/24"}, ""}, {"server2", "up0", "", {}, "br0"}},
      {{"core", "s3", "", {"10.9.3.1/24"}, ""}, {"server3", "up0", "", {}, "br0"}},
  };
  if (!options.qemu) {
    all.push_back({{"vm1", "nic1", "", {}, "eth0"}, {"server1", "tap0", "", {}, "br0"}});
    all.push_back({{"vm1", "nic2", "", {}, "eth0"}, {"server2", "tap0", "", {}, "br0", false}});
  }
  for (const auto& name : usecase1::firewalls()) {
    all.push_back({{name, "ext0", "", {own_external(name) + "/24"}, ""}, {"core", "to-" + name, "", {}, "ext0"}});
    if (nat == Nat::Masquerade) {
      all.push_back({{name, "ext1", "", {}, ""}, {"core", "to-" + name + "-vm1", "", {}, "ext0"}});
    }
  }
  if (!routes_inside_addresses(nat)) {
    for (auto& link : all) {
      if (link.a.node == "fw1" && link.a.name == "ext0") link.a.addresses.push_back(std::string(kVm2External) + "/32");
    }
  }
  const std::vector<std::pair<std::string, std::string>> managed{
      {"som", usecase1::kSomAddress}, {"tde", "192.0.2.2"}, {"fw1", "192.0.2.11"}, {"fw2", "192.0.2.12"}};
  for (const auto& [name, address] : managed) {
    all.push_back({{name, "mgmt0", "", {address + "/24"}, ""}, {"mgmt", "to-" + name, "", {}, "br0"}});
  }
  return all;
}

}  // namespace

std::string_view to_string(Nat nat) {
  for (const auto& [kind, name] : kNatNames) {
    if (kind == nat) return name;
  }
  return "unknown";
}

std::optional<Nat> parse_nat(std::string_view text) {
  for (const auto& [kind, name] : kNatNames) {
    if (name == text) return kind;
  }
  return std::nullopt;
}

namespace usecase1 {

Topology topology(const Usecase1Options& options) {
  Topology all;
  all.settings = {{"net.ipv6.conf.default.disable_ipv6", "1", true}, {"net.ipv4.conf.all.rp_filter", "0"},
                  {"net.ipv4.conf.default.rp_filter", "0"},          {"net.ipv4.conf.all.send_redirects", "0"},
                  {"net.ipv4.conf.default.send_redirects", "0"},     {"net.bridge.bridge-nf-call-iptables", "0", true},
                  {"net.bridge.bridge-nf-call-arptables", "0", true}};
  // The second tap of server1 is for a move that stays behind fw1.
  const bool qemu = options.qemu;
  const auto taps = [qemu](std::vector<std::string> names) { return qemu ? names : std::vector<std::string>{}; };
  if (!qemu) all.nodes = {vm("vm1", kVm1, kVm1Mac, "10.1.1.1")};
  const std::vector<Node> others{vm("vm2", kVm2, kVm2Mac, "10.1.2.1"),
                                 vm("vm3", kVm3, kVm3Mac, "10.9.3.1"),
                                 server("server1", {{"br0", "", {}}, {"br1", "", {}}}, taps({"tap0", "tap2"})),
                                 server("server2", {{"br0", "", {}}}, taps({"tap0"})),
                                 server("server3", {{"br0", "", {}}}),
                                 firewall("fw1", options),
                                 firewall("fw2", options),
                                 core(options.nat),
                                 {"mgmt", "management network", {{"br0", "", {}}}, {}, {}, ""},
                                 {"som", "State Orchestration Master", {}, {}, {}, ""},
                                 {"tde", "Topology Discovery Entity", {}, {}, {}, ""}};
  all.nodes.insert(all.nodes.end(), others.begin(), others.end());
  all.links = links(options);
  return all;
}

std::vector<LabVm> vms() {
  return {{"vm1", kVm1, kVm1Mac, {{"server1", "tap0", "fw1"}, {"server2", "tap0", "fw2"}}},
          {"vm2", kVm2, kVm2Mac, {{"server1", "tap1", ""}}},
          {"vm3", kVm3, kVm3Mac, {{"server3", "tap0", ""}}}};
}

std::vector<std::string> servers() { return {"server1", "server2", "server3"}; }

std::vector<std::string> firewalls() { return {"fw1", "fw2"}; }

Announcement announcement(const Usecase1Options& options, const LabVm& vm) {
  Announcement made;
  if (vm.name != "vm1") return made;
  made.announce = {fmt::format("route flush exact {}/32", kVm1)};
  made.withdraw = {fmt::format("route replace {}/32 dev ext0", kVm1)};
  made.gratuitous = {{"ext0", kVm1}};
  if (!has_external_address(options.nat)) return made;
  if (options.nat == Nat::Masquerade) {
    made.announce.push_back(fmt::format("address replace {}/24 dev ext1 noprefixroute", kVm1External));
    made.announce.push_back(fmt::format("route replace default via {} dev ext1 onlink table 110", kCore));
    made.withdraw.push_back("address flush dev ext1");
    made.gratuitous.emplace_back("ext1", kVm1External);
  } else {
    made.announce.push_back(fmt::format("address replace {}/32 dev ext0", kVm1External));
    made.withdraw.push_back(fmt::format("address flush dev ext0 to {}/32", kVm1External));
    made.gratuitous.emplace_back("ext0", kVm1External);
  }
  return made;
}

Conversants conversants(Nat nat) {
  if (nat == Nat::Dnat) return {"vm3", "vm1", kVm1External, kForwardedPort};
  return {"vm1", "vm3", nat == Nat::Both ? kService : kVm3, kServicePort};
}

std::vector<ExternalAddress> external_addresses(Nat nat, const std::string& firewall_name) {
  std::vector<ExternalAddress> all{{own_external(firewall_name), false}};
  if (has_external_address(nat)) all.push_back({kVm1External, true});
  if (!routes_inside_addresses(nat) && firewall_name == "fw1") all.push_back({kVm2External, false});
  return all;
}

std::string loss_ruleset(int percent) {
  const std::string drop = fmt::format("    numgen random mod 100 < {} counter drop\n", percent);
  return fmt::format(R"(table inet core
flush table inet core
table inet core {{
  chain forward {{
    type filter hook forward priority filter;
{}  }}
}}
)",
                     percent > 0 ? drop : "");
}

}  // namespace usecase1
}  // namespace sami::lab
