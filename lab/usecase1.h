// Use case 1 of draft-gu-statemigration-arch-00 (Figure 1) as a topology, and what is announced where.
//
//            vm3 -- server3 -- core            203.0.113.80: a service address that the firewalls translate (nat both)
//                               |  external segment 198.51.100.0/24
//                     +---------+---------+
//                    fw1                 fw2   same rules, no state in common, same inside gateway (address and MAC)
//                  /     \                |
//        10.1.2.0/24   10.1.1.0/24   10.1.1.0/24
//              vm2      server1        server2
//                          \             /
//                            vm1 ---->  (moves)
//   som, tde, fw1 and fw2 also have an interface on the management network 192.0.2.0/24.
//
// Return traffic goes where an address is announced: the firewall in front of vm1 answers ARP on the external segment
// for vm1's own address (proxy ARP follows the route) and, with NAT, for its external address; after a move it says
// so by gratuitous ARP, and the other one routes to vm1 through the segment.
//
// Pure: makes data, touches nothing.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lab/topology.h"

namespace sami::lab {

enum class Nat {
  None,        // plain routing
  Snat,        // vm1 appears as 198.51.100.10, random external ports; the address moves with it
  Dnat,        // 198.51.100.10:8001 (TCP, UDP) is forwarded to vm1:7001
  Both,        // Snat and Dnat, and 203.0.113.80 is forwarded to vm3: one connection translated on both sides
  Masquerade,  // vm1 leaves through an external interface of its own, whose address moves with it
  Shared,      // vm1 appears as the firewall's own address, which cannot move
};
std::string_view to_string(Nat nat);
std::optional<Nat> parse_nat(std::string_view text);

struct Usecase1Options {
  Nat nat = Nat::None;
  bool qemu = false;  // no node vm1; its ports on the servers are taps for QEMU, and its service is open to the outside
};

// A VM as the lab and the TDE know it.
struct LabVm {
  std::string name;
  std::string address;
  std::string mac;
  struct Placement {
    std::string server;
    std::string port;      // on the server
    std::string firewall;  // what announces the VM when it is there; empty: nobody has to
  };
  std::vector<Placement> placements;  // the first is where it begins
};

// How a VM's addresses are announced by a firewall, or are no longer. Commands are lines of `ip -batch`, idempotent.
struct Announcement {
  std::vector<std::string> announce;
  std::vector<std::string> withdraw;
  std::vector<std::pair<std::string, std::string>> gratuitous;  // {device, address}
};

// Who opens connections to whom when traffic of vm1 is wanted, by kind of NAT. Servers listen on port 7001.
struct Conversants {
  std::string client;
  std::string server;
  std::string server_address;  // where the client connects to
  int port = 0;
};

namespace usecase1 {

inline constexpr int kServicePort = 7001;
inline constexpr const char* kSomAddress = "192.0.2.1";

Topology topology(const Usecase1Options& options);
std::vector<LabVm> vms();
std::vector<std::string> servers();
std::vector<std::string> firewalls();
Announcement announcement(const Usecase1Options& options, const LabVm& vm);
Conversants conversants(Nat nat);

struct ExternalAddress {
  std::string address;
  bool moves_with_subject = false;
};
std::vector<ExternalAddress> external_addresses(Nat nat, const std::string& firewall);

// The core's ruleset that drops so many percent of what it forwards, at random; 0: none.
std::string loss_ruleset(int percent);

}  // namespace usecase1
}  // namespace sami::lab
