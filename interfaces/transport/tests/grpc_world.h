// Sessions over gRPC on loopback, with a certificate authority of the test's own.
#pragma once

#include "interfaces/transport/grpc_server.h"
#include "interfaces/transport/pki.h"
#include "interfaces/transport/tests/world.h"

namespace sami::transport::testing {

class GrpcWorld final : public World {
 public:
  GrpcWorld();
  ~GrpcWorld() override;

  void serve(MasterHandlers handlers, Limits limits) override { serve_with(std::move(handlers), limits, {}); }
  void serve_with(MasterHandlers handlers, Limits limits, const std::vector<grpc::Service*>& services);
  void stop() override { server_.reset(); }
  std::unique_ptr<AgentClient> agent(const Identity& identity, const std::string& master_name, Limits limits) override;
  std::unique_ptr<TdeClient> tde(const Identity& identity, const std::string& master_name, Limits limits) override;
  std::unique_ptr<AgentClient> agent_with(const Credentials& credentials, const std::string& target, Limits limits);

  // Made when first asked for. Identities of "other.example" come from another authority, which everybody trusts; those
  // of `untrusted` from one that nobody else does.
  Credentials credentials(const Identity& identity);
  Credentials untrusted_credentials();
  const std::string& folder() const { return folder_; }
  int port() const { return port_; }
  std::string target() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  std::string folder_;
  int reservation_ = -1;   // bound, not listening: the port stays ours while nobody serves
  int port_ = 0;
  std::unique_ptr<Server> server_;
};

}  // namespace sami::transport::testing
