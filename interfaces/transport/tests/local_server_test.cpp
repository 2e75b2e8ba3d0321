// The local control socket.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>

#include "interfaces/operator/operator.grpc.pb.h"
#include "interfaces/transport/channel.h"
#include "interfaces/transport/grpc_server.h"
#include "runtime/file.h"

namespace sami::transport {
namespace {

using ::testing::HasSubstr;
namespace api = ::sami::management::v1;

class EchoAgent final : public api::Agent::Service {
 public:
  grpc::Status Status(grpc::ServerContext* context, const api::Empty*, api::StatusReply* reply) override {
    reply->set_name(caller_name(*context));
    return grpc::Status::OK;
  }
};

class LocalServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/sami-local-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
    path_ = folder_ + "/run/soa.sock";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Result<std::unique_ptr<Server>> serve() { return start_local_server(path_, {&echo_}); }
  std::string ask() {
    grpc::ClientContext context;
    api::StatusReply reply;
    const auto status = api::Agent::NewStub(unix_channel(path_))->Status(&context, {}, &reply);
    return status.ok() ? reply.name() : status.error_message();
  }

  EchoAgent echo_;
  std::string folder_;
  std::string path_;
};

TEST_F(LocalServerTest, ServesItsOwnerOnly) {
  const auto server = serve();
  ASSERT_TRUE(server) << server.error().message;
  EXPECT_EQ(ask(), "local");
  struct stat status = {};
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
}

TEST_F(LocalServerTest, SocketOfALiveDaemonIsNotTaken) {
  const auto first = serve();
  ASSERT_TRUE(first);
  const auto second = serve();
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("belongs to a daemon that runs"));
  EXPECT_EQ(ask(), "local");
}

TEST_F(LocalServerTest, SocketOfADeadDaemonIsReplaced) {
  { ASSERT_TRUE(serve()); }
  EXPECT_FALSE(std::filesystem::exists(path_));
  const int left = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, path_.size());
  ASSERT_EQ(bind(left, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  close(left);
  const auto server = serve();
  ASSERT_TRUE(server) << server.error().message;
  EXPECT_EQ(ask(), "local");
}

TEST_F(LocalServerTest, WhatIsNotASocketIsLeftAlone) {
  std::filesystem::create_directory(folder_ + "/run");
  ASSERT_TRUE(write_file(path_, "mine", 0600));
  const auto server = serve();
  ASSERT_FALSE(server);
  EXPECT_THAT(server.error().message, HasSubstr("is not a socket"));
  EXPECT_EQ(*read_file(path_, 100), "mine");
  EXPECT_FALSE(start_local_server(folder_ + "/" + std::string(200, 'x'), {&echo_}));
}

}  // namespace
}  // namespace sami::transport
