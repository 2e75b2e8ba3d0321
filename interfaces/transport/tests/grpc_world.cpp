#include "interfaces/transport/tests/grpc_world.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "runtime/file.h"

namespace sami::transport::testing {
namespace {

constexpr std::size_t maximum_file = 100000;

std::string authority_name(const Identity& identity) { return identity.domain == domain ? "ours" : "other"; }

}  // namespace

GrpcWorld::GrpcWorld() {
  char name[] = "/tmp/sami-transport-XXXXXX";
  folder_ = mkdtemp(name);
  EXPECT_TRUE(pki::make_authority(folder_ + "/ours", domain));
  EXPECT_TRUE(pki::make_authority(folder_ + "/other", "other.example"));
  const std::string bundle =
      *read_file(folder_ + "/ours/ca.pem", maximum_file) + *read_file(folder_ + "/other/ca.pem", maximum_file);
  EXPECT_TRUE(write_file(folder_ + "/bundle.pem", bundle, 0644));
  reservation_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(reservation_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(reservation_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  getsockname(reservation_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
}

GrpcWorld::~GrpcWorld() {
  server_.reset();
  close(reservation_);
  std::filesystem::remove_all(folder_);
}

void GrpcWorld::serve_with(MasterHandlers handlers, Limits limits, const std::vector<grpc::Service*>& services) {
  auto served =
      start_server({target(), credentials({domain, "som", "som1"}), limits}, std::move(handlers), services, loop);
  ASSERT_TRUE(served) << served.error().message;
  server_ = std::move(*served);
  EXPECT_EQ(server_->port(), port_);
}

Credentials GrpcWorld::credentials(const Identity& identity) {
  const std::string authority = folder_ + "/" + authority_name(identity);
  const std::string stem = authority + "/" +
                           (identity.role == "operator" || identity.role == "viewer" ? identity.role + "-" : "") +
                           identity.name;
  if (!read_file(stem + ".pem", maximum_file)) {
    const auto issued = pki::issue(authority, identity.role, identity.name, 1, {});
    EXPECT_TRUE(issued) << issued.error().message;
  }
  return {folder_ + "/bundle.pem", stem + ".pem", stem + ".key"};
}

Credentials GrpcWorld::untrusted_credentials() {
  const std::string authority = folder_ + "/untrusted";
  EXPECT_TRUE(pki::make_authority(authority, domain));
  const auto issued = pki::issue(authority, "soa", "fw1", 1, {});
  EXPECT_TRUE(issued);
  // It trusts the server, and itself, so that only the server has a reason to refuse.
  const std::string bundle =
      *read_file(folder_ + "/bundle.pem", maximum_file) + *read_file(authority + "/ca.pem", maximum_file);
  EXPECT_TRUE(write_file(authority + "/bundle.pem", bundle, 0644));
  return {authority + "/bundle.pem", issued->certificate, issued->key};
}

std::unique_ptr<AgentClient> GrpcWorld::agent_with(const Credentials& files, const std::string& to, Limits limits) {
  auto client = make_agent_client({to, files, "som1", limits}, loop);
  EXPECT_TRUE(client) << client.error().message;
  return client ? std::move(*client) : nullptr;
}

std::unique_ptr<AgentClient> GrpcWorld::agent(const Identity& identity, const std::string& master_name, Limits limits) {
  auto client = make_agent_client({target(), credentials(identity), master_name, limits}, loop);
  EXPECT_TRUE(client) << client.error().message;
  return client ? std::move(*client) : nullptr;
}

std::unique_ptr<TdeClient> GrpcWorld::tde(const Identity& identity, const std::string& master_name, Limits limits) {
  auto client = make_tde_client({target(), credentials(identity), master_name, limits}, loop);
  EXPECT_TRUE(client) << client.error().message;
  return client ? std::move(*client) : nullptr;
}

WorldKind world_kind() {
  return {"grpc", [] { return std::make_unique<GrpcWorld>(); }};
}

}  // namespace sami::transport::testing
