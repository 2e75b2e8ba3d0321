// The control socket as a client sees it.
#include "soa/control.h"

#include <gmock/gmock.h>
#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <unistd.h>

#include <future>

#include "interfaces/operator/operator.grpc.pb.h"
#include "interfaces/transport/grpc_server.h"
#include "soa/agent.h"
#include "soa/tests/played_driver.h"

namespace sami::soa {
namespace {

namespace management = ::sami::management::v1;
using testing::HasSubstr;

class NoMaster : public transport::AgentClient {
 public:
  void start(Handlers) override {}
  void send(const if_m_a::v1::AgentMessage&) override {}
  void reconnect(const std::string&) override {}
};

class SoaControl : public testing::Test {
 protected:
  static void SetUpTestSuite() { ::grpc_init(); }  // kept: the end of the library may wait 10 s for a poller

  SoaControl() {
    AgentConfig config;
    config.machine.host = "fw1";
    auto* context = config.machine.profile.add_contexts();
    context->set_name("default");
    (*context->mutable_vn_zone())["blue"] = 0;
    agent_ = std::make_unique<Agent>(config, AgentPorts{loop_,
                                                        system_clock(),
                                                        journal_,
                                                        *audit_,
                                                        client_,
                                                        {&driver_},
                                                        Log(LogLevel::Error, [](LogLevel, const std::string&) {})});
    agent_->start();
    control_ = std::make_unique<Control>("fw1", *agent_, loop_);
    auto server = transport::start_local_server(path_, {&control_->service()});
    if (!server) throw std::runtime_error(server.error().message);
    server_ = std::move(*server);
    stub_ = management::Agent::NewStub(grpc::CreateChannel("unix:" + path_, grpc::InsecureChannelCredentials()));
  }
  // The call runs on a thread of its own, the loop on this one.
  template <typename Call>
  auto calling(Call call) {
    auto answer = std::async(std::launch::async, std::move(call));
    loop_.run_until([&] { return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready; },
                    std::chrono::seconds(10));
    return answer.get();
  }
  // Records and replies.
  std::pair<int, int> show(const management::StateRequest& request, grpc::Status& status) {
    return calling([&] {
      grpc::ClientContext context;
      const auto reader = stub_->ShowState(&context, request);
      management::StateReply reply;
      std::pair<int, int> counts{};
      while (reader->Read(&reply)) {
        EXPECT_LE(reply.ByteSizeLong(), 256U * 1024);
        EXPECT_EQ(reply.state_class(), "connection_tracking");
        counts.first += reply.records_size();
        ++counts.second;
      }
      status = reader->Finish();
      return counts;
    });
  }

  const std::string path_ = testing::TempDir() + "sami-soa-control-" + std::to_string(::getpid()) + ".sock";
  Loop loop_;
  PlayedDriver driver_;
  MemoryJournal journal_;
  std::unique_ptr<Audit> audit_ = make_memory_audit();
  NoMaster client_;
  std::unique_ptr<Agent> agent_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<transport::Server> server_;
  std::unique_ptr<management::Agent::Stub> stub_;
};

TEST_F(SoaControl, Status) {
  management::StatusReply reply;
  const auto status = calling([&] {
    grpc::ClientContext context;
    return stub_->Status(&context, management::Empty(), &reply);
  });
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(reply.daemon(), "soa");
  EXPECT_EQ(reply.name(), "fw1");
  EXPECT_FALSE(reply.connected());
}

TEST_F(SoaControl, StateIsStreamed) {
  driver_.records = 5000;
  management::StateRequest request;
  request.set_subject_id("10.1.1.10");
  grpc::Status status;
  const auto [records, replies] = show(request, status);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(records, 5000);
  EXPECT_GT(replies, 2);
}

TEST_F(SoaControl, ErrorsAreStatuses) {
  management::StateRequest request;
  request.set_subject_id("vm7");
  grpc::Status status;
  show(request, status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("vm7"));
  request.set_subject_id("10.1.1.10");
  request.set_context("red");
  show(request, status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("no context red"));
}

}  // namespace
}  // namespace sami::soa
