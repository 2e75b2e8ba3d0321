// What the system tests share: use case 1 with SAMI in it, one lab per test, taken down on every path; traffic of vm1
// the way the kind of NAT wants it; and the two firewalls as the kernel's own tools see them.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lab/checks.h"
#include "lab/gate_client.h"
#include "lab/hypervisor.h"
#include "lab/lab.h"
#include "lab/traffic.h"

namespace sami::lab {

inline constexpr const char* kVm1Address = "10.1.1.10";
inline constexpr const char* kVm2Address = "10.1.2.20";
inline constexpr const char* kVm3Address = "10.9.3.30";

// A server and its client. Unwrapped: a failure throws, and with it the test fails.
struct Conversers {
  Traffic server;
  Traffic client;
};

class SystemTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Builds the lab; throws when it does not come up.
  void up(Nat nat);

  // The server at `server_node` listens on `port`; the client at `client_node` connects to `address`:`server_port`.
  Conversers converse(const std::string& client_node, const std::string& server_node, const std::string& address,
                      int port, int server_port, TrafficKind kind, int connections, int interval_ms = 20,
                      int bytes = 100);
  // vm1's own traffic with vm3.
  Conversers vm1_traffic(TrafficKind kind, int connections, int interval_ms = 20, int bytes = 100);

  MoveReport move(const std::string& server, const MoveOptions& options = {});

  // The daemon is ended and starts again with this text in its configuration, in place of `replaced` or, when that is
  // empty, at the end; all are connected again.
  void reconfigure(const std::string& daemon, const std::string& text, const std::string& replaced = "");
  // What `sami ... -o json` prints about the master's or, with "--tde-socket" and the like, another daemon's affairs.
  std::string sami(const std::vector<std::string>& arguments) const;

  std::vector<std::string> entries(const std::string& firewall) const;
  // All entries are at the firewall before which vm1 runs, so many, and none at the other; the connections live.
  void expect_whole(Conversers& traffic, int connections);
  // Of both firewalls.
  std::uint64_t invalid_packets() const;
  std::uint64_t dropped_as_new() const;

  Lab& lab() { return *lab_; }
  GateClient& gate() { return *gate_; }

 private:
  std::optional<Lab> lab_;
  std::unique_ptr<GateClient> gate_;
};

// The peers a server sees, sorted: the external addresses and ports of its clients.
std::vector<std::string> peers_of(Traffic& server);

}  // namespace sami::lab
