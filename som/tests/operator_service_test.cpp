#include "som/operator_service.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <filesystem>
#include <future>

#include "interfaces/operator/operator.grpc.pb.h"
#include "interfaces/transport/channel.h"
#include "interfaces/transport/grpc_server.h"
#include "som/tests/master.h"

namespace sami::som {
namespace {

using testing::HasSubstr;

// The master's loop runs on this thread, callers on others.
struct OperatorServiceTest : testing::Test {
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "sami-som-XXXXXX").string();
    folder = ::mkdtemp(name.data());
    auto started = transport::start_local_server(folder + "/som.sock", {&service.service()});
    ASSERT_TRUE(started) << started.error().message;
    server = std::move(*started);
    stub = api::Master::NewStub(transport::unix_channel(folder + "/som.sock"));
  }
  void TearDown() override {
    service.stop();
    server.reset();
    std::filesystem::remove_all(folder);
  }
  template <typename Function>
  auto call(Function function) {
    auto result = std::async(std::launch::async, function);
    EXPECT_TRUE(master.until([&] { return result.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }));
    return result.get();
  }

  Master master;
  OperatorService service{*master.operations, master.loop};
  std::string folder;
  std::unique_ptr<transport::Server> server;
  std::unique_ptr<api::Master::Stub> stub;
};

TEST_F(OperatorServiceTest, AnswersAndProblemsBecomeRepliesAndStatuses) {
  master.registered_agent("fw1");
  const auto reply = call([&] {
    grpc::ClientContext context;
    api::ListHostsReply hosts;
    EXPECT_TRUE(stub->ListHosts(&context, {}, &hosts).ok());
    return hosts;
  });
  EXPECT_EQ(reply.hosts_size(), 1);
  const auto status = call([&] {
    grpc::ClientContext context;
    api::Migration migration;
    api::MigrationRequest request;
    request.set_id("m9");
    return stub->ShowMigration(&context, request, &migration);
  });
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("m9"));
}

TEST_F(OperatorServiceTest, TheActorIsAudited) {
  master.registered_agent("fw1");
  const auto status = call([&] {
    grpc::ClientContext context;
    api::Empty empty;
    api::DrainHostRequest request;
    request.set_host("fw1");
    request.set_on(true);
    return stub->DrainHost(&context, request, &empty);
  });
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(master.audited("operator"), testing::ElementsAre(HasSubstr("local")));
}

TEST_F(OperatorServiceTest, AWatchStreamsChangesUntilTheDaemonStops) {
  const auto tde1 = master.authorized_tde();
  master.announce(tde1, vm1());
  const std::string id = master.shell->machine()->migrations().at(0)->id();
  std::atomic<int> seen{0};
  auto watching = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    api::MigrationRequest request;
    request.set_id(id);
    const auto reader = stub->WatchMigration(&context, request);
    api::Migration migration;
    while (reader->Read(&migration)) ++seen;
    return reader->Finish();
  });
  ASSERT_TRUE(master.until([&] { return seen == 1; }));
  api::MigrationRequest request;
  request.set_id(id);
  EXPECT_TRUE(master.operations->abort(request, "local"));
  EXPECT_TRUE(master.until([&] { return seen > 1; }));
  service.stop();
  EXPECT_EQ(watching.get().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(OperatorServiceTest, ACallerThatGoesAwayIsNotWatchedFor) {
  const auto tde1 = master.authorized_tde();
  master.announce(tde1, vm1());
  api::MigrationRequest request;
  request.set_id(master.shell->machine()->migrations().at(0)->id());
  const auto status = call([&] {
    grpc::ClientContext context;
    const auto reader = stub->WatchMigration(&context, request);
    api::Migration migration;
    EXPECT_TRUE(reader->Read(&migration));
    context.TryCancel();
    return reader->Finish();
  });
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(master.until([&] { return master.operations->watching() == 0; }));
}

}  // namespace
}  // namespace sami::som
