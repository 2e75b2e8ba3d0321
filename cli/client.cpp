#include "cli/client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <chrono>

#include "interfaces/operator/operator.grpc.pb.h"
#include "interfaces/transport/channel.h"

namespace sami::cli {
namespace {

ExitCode exit_code(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::NOT_FOUND: return ExitCode::NotFound;
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED: return ExitCode::Denied;
    case grpc::StatusCode::UNAVAILABLE: return ExitCode::Unreachable;
    case grpc::StatusCode::FAILED_PRECONDITION: return ExitCode::Refused;
    case grpc::StatusCode::DEADLINE_EXCEEDED: return ExitCode::TimedOut;
    case grpc::StatusCode::INVALID_ARGUMENT: return ExitCode::Usage;
    default: return ExitCode::Failed;
  }
}

// One daemon's stub, and what to say when it does not answer.
template <typename Service>
class Caller {
 public:
  Caller(std::shared_ptr<grpc::Channel> channel, std::string target, std::uint32_t timeout_seconds)
      : stub_(Service::NewStub(channel)), target_(std::move(target)), timeout_seconds_(timeout_seconds) {}

  template <typename Request, typename Reply>
  Answer<Reply> call(grpc::Status (Service::Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                     const Request& request) {
    grpc::ClientContext context;
    limit(context, timeout_seconds_);
    Reply reply;
    if (const grpc::Status status = (stub_.get()->*method)(&context, request, &reply); !status.ok())
      return problem(status);
    return reply;
  }

  template <typename Request, typename Reply>
  Answer<api::Empty> stream(std::unique_ptr<grpc::ClientReader<Reply>> (Service::Stub::*method)(grpc::ClientContext*,
                                                                                                const Request&),
                            const Request& request, std::uint32_t seconds, const Each<Reply>& each) {
    grpc::ClientContext context;
    limit(context, seconds);
    auto reader = (stub_.get()->*method)(&context, request);
    Reply reply;
    while (reader->Read(&reply)) {
      if (each(reply)) continue;
      context.TryCancel();
      reader->Finish().error_code();
      return api::Empty{};
    }
    if (const grpc::Status status = reader->Finish(); !status.ok()) return problem(status);
    return api::Empty{};
  }

  std::uint32_t timeout_seconds() const { return timeout_seconds_; }

 private:
  static void limit(grpc::ClientContext& context, std::uint32_t seconds) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
  }

  Problem problem(const grpc::Status& status) const {
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE)
      return {ExitCode::Unreachable, transport::explain(status, target_)};
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED)
      return {ExitCode::TimedOut, fmt::format("{} did not answer in time", target_)};
    return {exit_code(status.error_code()), status.error_message()};
  }

  std::unique_ptr<typename Service::Stub> stub_;
  std::string target_;
  std::uint32_t timeout_seconds_;
};

class GrpcMaster final : public MasterClient {
  using Service = management::v1::Master;
  using Stub = Service::Stub;

 public:
  GrpcMaster(std::shared_ptr<grpc::Channel> channel, const std::string& target, std::uint32_t timeout)
      : caller_(std::move(channel), target, timeout) {}
  Answer<api::StatusReply> status() override { return caller_.call(&Stub::Status, api::Empty{}); }
  Answer<api::ListHostsReply> hosts() override { return caller_.call(&Stub::ListHosts, api::ListHostsRequest{}); }
  Answer<api::Empty> drain(const api::DrainHostRequest& request) override {
    return caller_.call(&Stub::DrainHost, request);
  }
  Answer<api::ListVmsReply> vms() override { return caller_.call(&Stub::ListVms, api::ListVmsRequest{}); }
  Answer<api::ListMigrationsReply> migrations(const api::ListMigrationsRequest& request) override {
    return caller_.call(&Stub::ListMigrations, request);
  }
  Answer<api::Migration> migration(const std::string& id) override {
    return caller_.call(&Stub::ShowMigration, request(id, ""));
  }
  Answer<api::Empty> watch(const std::string& id, std::uint32_t seconds, const Each<api::Migration>& each) override {
    return caller_.stream(&Stub::WatchMigration, request(id, ""), seconds, each);
  }
  Answer<api::PlanReply> plan(const api::PlanRequest& request) override {
    return caller_.call(&Stub::PlanMigration, request);
  }
  Answer<api::StartReply> start(const api::PlanRequest& request) override {
    return caller_.call(&Stub::StartMigration, request);
  }
  Answer<api::Empty> abort(const std::string& id, const std::string& reason) override {
    return caller_.call(&Stub::AbortMigration, request(id, reason));
  }
  Answer<api::Empty> force(const std::string& id) override {
    return caller_.call(&Stub::ForceMigration, request(id, ""));
  }
  Answer<api::Empty> resolve(const api::ResolveRequest& request) override {
    return caller_.call(&Stub::ResolveMigration, request);
  }
  Answer<api::AuditReply> audit(const api::AuditRequest& request) override {
    return caller_.call(&Stub::Audit, request);
  }
  Answer<api::Empty> state(const api::StateRequest& request, const Each<api::StateReply>& each) override {
    return caller_.stream(&Stub::ShowState, request, caller_.timeout_seconds(), each);
  }
  Answer<api::TopologyReply> topology(const api::TopologyRequest& request) override {
    return caller_.call(&Stub::ShowTopology, request);
  }

 private:
  static api::MigrationRequest request(const std::string& id, const std::string& reason) {
    api::MigrationRequest out;
    out.set_id(id);
    out.set_reason(reason);
    return out;
  }
  Caller<Service> caller_;
};

class GrpcAgent final : public AgentClient {
  using Stub = management::v1::Agent::Stub;

 public:
  GrpcAgent(std::shared_ptr<grpc::Channel> channel, const std::string& target, std::uint32_t timeout)
      : caller_(std::move(channel), target, timeout) {}
  Answer<api::StatusReply> status() override { return caller_.call(&Stub::Status, api::Empty{}); }
  Answer<api::Empty> state(const api::StateRequest& request, const Each<api::StateReply>& each) override {
    return caller_.stream(&Stub::ShowState, request, caller_.timeout_seconds(), each);
  }

 private:
  Caller<management::v1::Agent> caller_;
};

class GrpcTopology final : public TopologyClient {
  using Stub = management::v1::Topology::Stub;

 public:
  GrpcTopology(std::shared_ptr<grpc::Channel> channel, const std::string& target, std::uint32_t timeout)
      : caller_(std::move(channel), target, timeout) {}
  Answer<api::StatusReply> status() override { return caller_.call(&Stub::Status, api::Empty{}); }
  Answer<api::NotifyReply> notify(const api::NotifyRequest& request) override {
    return caller_.call(&Stub::Notify, request);
  }
  Answer<api::Empty> watch(const std::string& notification_id, std::uint32_t seconds,
                           const Each<api::MoveStatus>& each) override {
    api::WatchMoveRequest request;
    request.set_notification_id(notification_id);
    return caller_.stream(&Stub::WatchMove, request, seconds, each);
  }
  Answer<api::TopologyReply> topology(const api::TopologyRequest& request) override {
    return caller_.call(&Stub::ShowTopology, request);
  }

 private:
  Caller<management::v1::Topology> caller_;
};

}  // namespace

std::unique_ptr<MasterClient> connect_master(const Connection& connection) {
  if (connection.master.empty())
    return std::make_unique<GrpcMaster>(transport::unix_channel(connection.som_socket), connection.som_socket,
                                        connection.timeout_seconds);
  return std::make_unique<GrpcMaster>(
      transport::tls_channel(connection.master, {connection.ca, connection.certificate, connection.key},
                             connection.master_name),
      connection.master, connection.timeout_seconds);
}

std::unique_ptr<AgentClient> connect_agent(const Connection& connection) {
  return std::make_unique<GrpcAgent>(transport::unix_channel(connection.soa_socket), connection.soa_socket,
                                     connection.timeout_seconds);
}

std::unique_ptr<TopologyClient> connect_topology(const Connection& connection) {
  return std::make_unique<GrpcTopology>(transport::unix_channel(connection.tde_socket), connection.tde_socket,
                                        connection.timeout_seconds);
}

}  // namespace sami::cli
