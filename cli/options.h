// The command line as a value: what was asked, with everything checked that can be checked without a daemon.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "cli/exit_code.h"

namespace sami::cli {

// Where the daemons are, and how to print.
struct Connection {
  std::string som_socket = "/run/sami/som.sock";
  std::string tde_socket = "/run/sami/tde.sock";
  std::string soa_socket = "/run/sami/soa.sock";
  std::string master;       // host:port: over mTLS instead of the local socket
  std::string master_name;  // name in the SOM's certificate
  std::string ca, certificate, key;
  bool json = false;
  std::uint32_t timeout_seconds = 10;
};

namespace command {
struct HostList {};
struct HostShow {
  std::string host;
};
struct HostDrain {
  std::string host;
  bool undo = false;
};
struct VmList {};
struct VmShow {
  std::string vm;
};
struct MigrationList {
  std::string vm;
  bool open_only = false;
};
struct MigrationShow {
  std::string id;
};
struct MigrationWatch {
  std::string id;
};
struct MigrationPlan {
  std::string vm, server;
};
struct MigrationStart {
  std::string vm, server;
  bool force = false, dry_run = false, wait = false;
  std::uint32_t wait_seconds = 600;
};
struct MigrationAbort {
  std::string id, reason;
};
struct MigrationForce {
  std::string id;
};
struct MigrationResolve {
  std::string id;
  bool at_destination = false;
};
struct StateShow {
  std::string host, vm, state_class, context;
  bool local = false;
};
struct StateDiff {
  std::string vm, first_host, second_host, state_class, context;
};
struct TopologyShow {
  std::string vm;
};
struct TopologyPath {
  std::string vm, server;
};
struct Notify {
  std::string phase, vm, server, id, cause;
  bool force = false, wait = false;
  std::uint32_t wait_seconds = 600;
};
struct Audit {
  std::string vm, migration;
  std::int64_t from = 0, to = 0;
  std::uint32_t limit = 1000;
};
struct Status {
  std::string daemon = "som";
};
struct PkiInit {
  std::string folder, domain;
};
struct PkiIssue {
  std::string folder, role, name;
  std::uint32_t days = 825;
  std::vector<std::string> hosts;
};
struct PkiShow {
  std::string file;
};
}  // namespace command

using Command =
    std::variant<command::HostList, command::HostShow, command::HostDrain, command::VmList, command::VmShow,
                 command::MigrationList, command::MigrationShow, command::MigrationWatch, command::MigrationPlan,
                 command::MigrationStart, command::MigrationAbort, command::MigrationForce, command::MigrationResolve,
                 command::StateShow, command::StateDiff, command::TopologyShow, command::TopologyPath, command::Notify,
                 command::Audit, command::Status, command::PkiInit, command::PkiIssue, command::PkiShow>;

struct Options {
  Connection connection;
  Command command;
};

// Either what to do, or what to print instead and the code to exit with (help, version, a usage error).
struct Stop {
  ExitCode code = ExitCode::Usage;
  std::string output;  // for standard output (help) or standard error (usage)
};
std::variant<Options, Stop> parse_options(int count, const char* const* arguments);

// "2026-11-21T03:12", "03:12" (today), "10m" or "2h" ago; UTC. Microseconds since the epoch, or nothing.
bool parse_time(const std::string& text, std::int64_t now, std::int64_t& result);

}  // namespace sami::cli
