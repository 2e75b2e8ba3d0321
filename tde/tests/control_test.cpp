// The control socket as a hypervisor sees it.
#include "tde/control.h"

#include <gmock/gmock.h>
#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <unistd.h>

#include <future>

#include "interfaces/operator/operator.grpc.pb.h"
#include "interfaces/transport/grpc_server.h"
#include "tde/entity.h"

namespace sami::tde {
namespace {

namespace management = ::sami::management::v1;
using testing::HasSubstr;

class NoMaster : public transport::TdeClient {
 public:
  void start(Handlers) override {}
  void send(const if_m_t::v1::TdeMessage&) override {}
  void reconnect(const std::string&) override {}
};

Topology two_servers() {
  TopologyDescription description;
  description.servers = {{"server1", ""}, {"server2", ""}};
  description.state_hosts = {{"fw1", {"firewall"}, ""}, {"fw2", {"firewall"}, ""}};
  common::Subject vm1;
  vm1.set_id("vm1");
  vm1.add_interfaces()->set_vn_name("blue");
  description.vms = {{vm1, "server1", ""}};
  const common::Prefix everywhere = to_message(parse_prefix("0.0.0.0/0").value());
  description.paths = {{"server1", {everywhere}, {{"fw1", ""}}, ""}, {"server2", {everywhere}, {{"fw2", ""}}, ""}};
  return Topology::make(std::move(description)).value();
}

class TdeControl : public testing::Test {
 protected:
  static void SetUpTestSuite() { ::grpc_init(); }  // kept: the end of the library may wait 10 s for a poller

  TdeControl() {
    EntityConfig config;
    config.name = "tde1";
    entity_ = std::make_unique<Entity>(config, two_servers(),
                                       EntityPorts{loop_, system_clock(), journal_, *audit_, client_,
                                                   Log(LogLevel::Error, [](LogLevel, const std::string&) {})});
    entity_->start();
    control_ = std::make_unique<Control>("tde1", *entity_, loop_);
    auto server = transport::start_local_server(path_, {&control_->service()});
    if (!server) throw std::runtime_error(server.error().message);
    server_ = std::move(*server);
    stub_ = management::Topology::NewStub(grpc::CreateChannel("unix:" + path_, grpc::InsecureChannelCredentials()));
  }
  // The call runs on a thread of its own, the loop on this one.
  template <typename Call>
  auto calling(Call call) {
    auto answer = std::async(std::launch::async, std::move(call));
    loop_.run_until([&] { return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready; },
                    std::chrono::seconds(10));
    return answer.get();
  }
  grpc::Status notify(if_m_t::v1::Phase phase, const std::string& subject, const std::string& destination = "") {
    management::NotifyRequest request;
    request.set_phase(phase);
    request.set_subject_id(subject);
    request.set_destination_place(destination);
    return calling([&] {
      grpc::ClientContext context;
      management::NotifyReply reply;
      auto status = stub_->Notify(&context, request, &reply);
      if (status.ok()) id_ = reply.notification_id();
      return status;
    });
  }

  const std::string path_ = testing::TempDir() + "sami-tde-control-" + std::to_string(::getpid()) + ".sock";
  Loop loop_;
  MemoryJournal journal_;
  std::unique_ptr<Audit> audit_ = make_memory_audit();
  NoMaster client_;
  std::unique_ptr<Entity> entity_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<transport::Server> server_;
  std::unique_ptr<management::Topology::Stub> stub_;
  std::string id_;
};

TEST_F(TdeControl, NotifyListAndShow) {
  ASSERT_TRUE(notify(if_m_t::v1::PHASE_ANNOUNCED, "vm1", "server2").ok());
  management::ListMovesReply moves;
  management::TopologyReply topology;
  management::TopologyRequest request;
  request.set_subject_id("vm1");
  request.set_destination_place("server2");
  calling([&] {
    grpc::ClientContext first, second;
    stub_->ListMoves(&first, management::Empty(), &moves);
    return stub_->ShowTopology(&second, request, &topology);
  });
  ASSERT_EQ(moves.moves_size(), 1);
  EXPECT_EQ(moves.moves(0).notification_id(), id_);
  EXPECT_EQ(moves.moves(0).state(), "Announced");
  EXPECT_EQ(topology.transfers_size(), 1);
  EXPECT_THAT(topology.lines(), testing::Contains("server server1: vm1"));
}

TEST_F(TdeControl, ErrorsAreStatuses) {
  const auto unknown = notify(if_m_t::v1::PHASE_ANNOUNCED, "vm9", "server2");
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(unknown.error_message(), HasSubstr("vm9"));
  EXPECT_EQ(notify(if_m_t::v1::PHASE_ANNOUNCED, "vm1", "server1").error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(notify(if_m_t::v1::PHASE_UNSPECIFIED, "vm1").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  journal_.fail_commits(1, {ErrorKind::Failed, "disk full"});
  EXPECT_EQ(notify(if_m_t::v1::PHASE_ANNOUNCED, "vm1", "server2").error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TdeControl, AWatcherSeesTheStatesAndEndsWithTheDaemon) {
  ASSERT_TRUE(notify(if_m_t::v1::PHASE_ANNOUNCED, "vm1", "server2").ok());
  management::WatchMoveRequest request;
  request.set_notification_id(id_);
  grpc::ClientContext context;
  auto reader = stub_->WatchMove(&context, request);
  management::MoveStatus status;
  ASSERT_TRUE(calling([&] { return reader->Read(&status); }));
  EXPECT_EQ(status.state(), "Announced");
  ASSERT_TRUE(notify(if_m_t::v1::PHASE_PAUSED, "vm1").ok());
  ASSERT_TRUE(calling([&] { return reader->Read(&status); }));
  EXPECT_EQ(status.state(), "Paused");
  server_.reset();
  EXPECT_FALSE(reader->Read(&status));
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace sami::tde
