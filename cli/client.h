// The daemons as `sami` sees them: one blocking call per question, with a deadline. Not thread-safe.
// An error's exit code follows from the gRPC status; its message is the daemon's own sentence.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cli/options.h"
#include "interfaces/operator/operator.pb.h"

namespace sami::cli {

namespace api = ::sami::management::v1;

struct Problem {
  ExitCode code = ExitCode::Failed;
  std::string message;
};
template <typename T>
using Answer = std::variant<T, Problem>;

// Called for each item of a stream; false ends it.
template <typename T>
using Each = std::function<bool(const T&)>;

class MasterClient {
 public:
  virtual ~MasterClient() = default;
  virtual Answer<api::StatusReply> status() = 0;
  virtual Answer<api::ListHostsReply> hosts() = 0;
  virtual Answer<api::Empty> drain(const api::DrainHostRequest& request) = 0;
  virtual Answer<api::ListVmsReply> vms() = 0;
  virtual Answer<api::ListMigrationsReply> migrations(const api::ListMigrationsRequest& request) = 0;
  virtual Answer<api::Migration> migration(const std::string& id) = 0;
  virtual Answer<api::Empty> watch(const std::string& id, std::uint32_t seconds, const Each<api::Migration>& each) = 0;
  virtual Answer<api::PlanReply> plan(const api::PlanRequest& request) = 0;
  virtual Answer<api::StartReply> start(const api::PlanRequest& request) = 0;
  virtual Answer<api::Empty> abort(const std::string& id, const std::string& reason) = 0;
  virtual Answer<api::Empty> force(const std::string& id) = 0;
  virtual Answer<api::Empty> resolve(const api::ResolveRequest& request) = 0;
  virtual Answer<api::AuditReply> audit(const api::AuditRequest& request) = 0;
  virtual Answer<api::Empty> state(const api::StateRequest& request, const Each<api::StateReply>& each) = 0;
  virtual Answer<api::TopologyReply> topology(const api::TopologyRequest& request) = 0;
};

// sami-soa's and sami-tde's local sockets.
class AgentClient {
 public:
  virtual ~AgentClient() = default;
  virtual Answer<api::StatusReply> status() = 0;
  virtual Answer<api::Empty> state(const api::StateRequest& request, const Each<api::StateReply>& each) = 0;
};
class TopologyClient {
 public:
  virtual ~TopologyClient() = default;
  virtual Answer<api::StatusReply> status() = 0;
  virtual Answer<api::NotifyReply> notify(const api::NotifyRequest& request) = 0;
  virtual Answer<api::Empty> watch(const std::string& notification_id, std::uint32_t seconds,
                                   const Each<api::MoveStatus>& each) = 0;
  virtual Answer<api::TopologyReply> topology(const api::TopologyRequest& request) = 0;
};

std::unique_ptr<MasterClient> connect_master(const Connection& connection);
std::unique_ptr<AgentClient> connect_agent(const Connection& connection);
std::unique_ptr<TopologyClient> connect_topology(const Connection& connection);

}  // namespace sami::cli
