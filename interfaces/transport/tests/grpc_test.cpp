// What only gRPC shows: certificates, TLS versions, strangers on the port, dead links, descriptors, roles of operators.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <openssl/ssl.h>
#include <sys/resource.h>

#include <algorithm>

#include "interfaces/operator/operator.grpc.pb.h"
#include "interfaces/transport/channel.h"
#include "interfaces/transport/listener.h"
#include "interfaces/transport/tests/grpc_world.h"
#include "interfaces/transport/tests/socket.h"
#include "runtime/file.h"

namespace sami::transport::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace api = ::sami::management::v1;

// Says who called.
class EchoMaster final : public api::Master::Service {
 public:
  grpc::Status Status(grpc::ServerContext* context, const api::Empty*, api::StatusReply* reply) override {
    reply->set_name(caller_name(*context));
    return grpc::Status::OK;
  }
  grpc::Status AbortMigration(grpc::ServerContext*, const api::MigrationRequest*, api::Empty*) override {
    return grpc::Status::OK;
  }
};

class GrpcTest : public ::testing::Test {
 protected:
  void serve(Limits limits = {}) { world_.serve_with(master_.handlers(), limits, {&echo_}); }
  bool until(const std::function<bool()>& condition) { return world_.loop.run_until(condition, patience); }

  void dial(const Credentials& credentials, Limits limits = {}) {
    client_ = world_.agent_with(credentials, world_.target(), limits);
    client_->start(dialler_.handlers<AgentClient>());
  }
  void expect_service() {
    AgentDialler dialler;
    const auto client = world_.agent(soa("witness"), "som1", {});
    client->start(dialler.handlers<AgentClient>());
    EXPECT_TRUE(until([&] { return dialler.connected > 0; })) << ::testing::PrintToString(dialler.disconnected);
  }
  grpc::Status ask(const std::shared_ptr<grpc::Channel>& channel, std::string* name = nullptr) {
    grpc::ClientContext context;
    api::StatusReply reply;
    const auto status = api::Master::NewStub(channel)->Status(&context, {}, &reply);
    if (name != nullptr) *name = reply.name();
    return status;
  }

  EchoMaster echo_;
  Master master_;
  AgentDialler dialler_;
  GrpcWorld world_;
  std::unique_ptr<AgentClient> client_;
};

TEST_F(GrpcTest, CertificateOfAnotherAuthorityIsRefused) {
  serve();
  dial(world_.untrusted_credentials());
  ASSERT_TRUE(until([&] { return dialler_.disconnected.size() == 2; }));
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("refused our certificate"));
  EXPECT_THAT(master_.agents, IsEmpty());
}

TEST_F(GrpcTest, ServerOfAnotherAuthorityIsRefused) {
  serve();
  Credentials credentials = world_.untrusted_credentials();
  credentials.ca_file = world_.folder() + "/untrusted/ca.pem";
  dial(credentials);
  ASSERT_TRUE(until([&] { return !dialler_.disconnected.empty(); }));
  EXPECT_THAT(dialler_.disconnected[0], HasSubstr("does not hold against our CA"));
}

TEST_F(GrpcTest, ClientWithoutCertificateIsRefused) {
  serve();
  EXPECT_NE(tls_handshake(world_.port(), TLS1_3_VERSION, "", ""), "");
  const Credentials good = world_.credentials(soa("fw1"));
  EXPECT_EQ(tls_handshake(world_.port(), TLS1_3_VERSION, good.certificate_file, good.key_file), "");
}

TEST_F(GrpcTest, OlderTlsIsRefused) {
  serve();
  const Credentials good = world_.credentials(soa("fw1"));
  EXPECT_NE(tls_handshake(world_.port(), TLS1_2_VERSION, good.certificate_file, good.key_file), "");
  expect_service();
}

TEST_F(GrpcTest, CredentialsThatCannotBeUsedAreAnErrorAtTheStart) {
  Credentials credentials = world_.credentials(soa("fw1"));
  credentials.key_file = world_.credentials(soa("fw2")).key_file;
  const auto client = make_agent_client({world_.target(), credentials, "som1", {}}, world_.loop);
  ASSERT_FALSE(client);
  EXPECT_THAT(client.error().message, HasSubstr("is not the key of"));
  const auto server =
      start_server({world_.target(), world_.credentials(soa("fw1")), {}}, master_.handlers(), {}, world_.loop);
  ASSERT_FALSE(server);
  EXPECT_THAT(server.error().message, HasSubstr("expected role som"));
}

TEST_F(GrpcTest, TakenPortIsAnError) {
  serve();
  const auto second = start_server({world_.target(), world_.credentials({domain, "som", "som1"}), {}},
                                   master_.handlers(), {}, world_.loop);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("Address already in use"));
}

TEST_F(GrpcTest, GarbageAndSilenceOnThePortEndAndHarmNobody) {
  serve({.first_message = std::chrono::milliseconds(500)});
  const Socket garbage = Socket::connect_to(world_.port());
  const Socket http = Socket::connect_to(world_.port());
  const Socket silent = Socket::connect_to(world_.port());
  ASSERT_TRUE(garbage.send(std::string(5000, '\xff')));
  ASSERT_TRUE(http.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
  EXPECT_TRUE(until([&] { return garbage.closed_by_peer() && http.closed_by_peer() && silent.closed_by_peer(); }));
  expect_service();
}

TEST_F(GrpcTest, DeadLinkIsNoticedAtBothEnds) {
  serve({.keepalive = std::chrono::milliseconds(200)});
  Relay relay(world_.port());
  client_ = world_.agent_with(world_.credentials(soa("fw1")), "127.0.0.1:" + std::to_string(relay.port()),
                              {.keepalive = std::chrono::milliseconds(200)});
  client_->start(dialler_.handlers<AgentClient>());
  ASSERT_TRUE(until([&] { return dialler_.connected == 1 && master_.agents.size() == 1; }));
  relay.fall_silent();
  EXPECT_TRUE(until([&] { return !dialler_.disconnected.empty() && !master_.closed.empty(); }));
}

TEST_F(GrpcTest, SilenceOfALiveLinkIsNoReasonToClose) {
  serve({.first_message = std::chrono::milliseconds(10000), .keepalive = std::chrono::milliseconds(100)});
  dial(world_.credentials(soa("fw1")), {.keepalive = std::chrono::milliseconds(100)});
  ASSERT_TRUE(until([&] { return dialler_.connected == 1 && master_.agents.size() == 1; }));
  EXPECT_FALSE(world_.loop.run_until([&] { return !dialler_.disconnected.empty(); }, std::chrono::seconds(1)))
      << dialler_.disconnected[0];
}

// gRPC 1.51's own listener would never accept again.
TEST_F(GrpcTest, AcceptsAgainAfterDescriptorsRanOut) {
  serve({.first_message = std::chrono::milliseconds(1000)});
  expect_service();
  rlimit before = {};
  getrlimit(RLIMIT_NOFILE, &before);
  rlimit low = before;
  low.rlim_cur = 160;
  std::vector<Socket> strangers;
  setrlimit(RLIMIT_NOFILE, &low);
  while (strangers.size() < 200) {
    Socket stranger = Socket::connect_to(world_.port());
    if (!stranger.connected()) break;
    strangers.push_back(std::move(stranger));
  }
  EXPECT_LT(strangers.size(), 200U);
  EXPECT_TRUE(until([&] {
    return std::any_of(master_.refused.begin(), master_.refused.end(), [](const std::string& why) {
      return why.find("descriptors have run out") != std::string::npos;
    });
  }));
  strangers.clear();
  expect_service();
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST_F(GrpcTest, TooFewDescriptorsToServeAnybody) {
  rlimit before = {};
  getrlimit(RLIMIT_NOFILE, &before);
  rlimit low = before;
  low.rlim_cur = 100;
  setrlimit(RLIMIT_NOFILE, &low);
  const auto listener = Listener::on_port("127.0.0.1:0");
  setrlimit(RLIMIT_NOFILE, &before);
  ASSERT_FALSE(listener);
  EXPECT_EQ(listener.error().kind, ErrorKind::InvalidInput);
  EXPECT_NE(listener.error().message.find("may open 100 descriptors, expected at least 128"), std::string::npos);
}

TEST_F(GrpcTest, ReplacedCertificateIsUsedAtTheNextAttempt) {
  serve();
  const Credentials first = world_.credentials(soa("fw1"));
  const Credentials second = world_.credentials(soa("fw1b"));
  dial(first);
  ASSERT_TRUE(until([&] { return master_.agents.size() == 1; }));
  for (const auto& [from, to, mode] : {std::tuple(second.certificate_file, first.certificate_file, 0644U),
                                       std::tuple(second.key_file, first.key_file, 0600U)})
    ASSERT_TRUE(write_file(to, *read_file(from, 100000), mode));
  client_->reconnect("new certificate");
  ASSERT_TRUE(until([&] { return master_.agents.size() == 2; }));
  EXPECT_EQ(master_.agents[1]->peer().name, "fw1b");
}

TEST_F(GrpcTest, OperatorMayViewerMayNot) {
  serve();
  const auto abort = [&](const char* role, const char* name) {
    grpc::ClientContext context;
    api::Empty reply;
    return api::Master::NewStub(tls_channel(world_.target(), world_.credentials({domain, role, name}), "som1"))
        ->AbortMigration(&context, {}, &reply);
  };
  EXPECT_TRUE(abort("operator", "alice").ok());
  const grpc::Status denied = abort("viewer", "victor");
  EXPECT_EQ(denied.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(denied.error_message(), HasSubstr("expected role operator"));
  EXPECT_EQ(abort("soa", "fw1").error_code(), grpc::StatusCode::PERMISSION_DENIED);
  std::string name;
  EXPECT_TRUE(ask(tls_channel(world_.target(), world_.credentials({domain, "viewer", "victor"}), "som1"), &name).ok());
  EXPECT_EQ(name, "viewer/victor");
  EXPECT_TRUE(until([&] { return master_.refused.size() == 2; }));
  EXPECT_THAT(master_.refused[0], HasSubstr("spiffe://dc.example/sami/viewer/victor"));
}

TEST_F(GrpcTest, ChannelExplainsWhatWentWrong) {
  const Credentials alice = world_.credentials({domain, "operator", "alice"});
  grpc::Status status = ask(tls_channel(world_.target(), alice, "som1"));
  EXPECT_THAT(explain(status, "som1"), HasSubstr("nobody listens on som1"));
  serve();
  status = ask(tls_channel(world_.target(), alice, "som2"));
  EXPECT_THAT(explain(status, "here"),
              HasSubstr("here is the wrong server: the server is spiffe://dc.example/sami/som/som1"));
  status = ask(unix_channel(world_.folder() + "/nothing.sock"));
  EXPECT_THAT(explain(status, "nothing.sock"), HasSubstr("nothing.sock is not there"));
}

}  // namespace
}  // namespace sami::transport::testing
