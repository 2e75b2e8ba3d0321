// The client against a QEMU that misbehaves.
#include "tde/qemu/qmp.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>

#include "tde/qemu/tests/fake_qemu.h"

namespace sami::tde::qmp {
namespace {

using ::testing::HasSubstr;
constexpr auto kPatience = std::chrono::seconds(10);

class QmpClient : public ::testing::Test {
 protected:
  QmpClient() : path_(std::filesystem::temp_directory_path() / ("sami-qmp-client-" + std::to_string(::getpid()))) {}
  ~QmpClient() override { std::filesystem::remove(path_); }

  void start(ClientOptions options = {}) {
    client_ = make_client(path_, loop_, options);
    client_->start({.on_connected = [this](const std::string&) { ++connections_; },
                    .on_event = [this](const Event& event) { events_.push_back(event.name); },
                    .on_disconnected = [this](const Error& reason) { reasons_.push_back(reason.message); }});
  }
  bool until(const std::function<bool()>& condition) { return loop_.run_until(condition, kPatience); }
  FakeQemu& qemu() {
    if (!qemu_) qemu_ = std::make_unique<FakeQemu>(path_, false, network_, loop_);
    return *qemu_;
  }

  std::string path_;
  Loop loop_;
  FakeNetwork network_;
  std::unique_ptr<FakeQemu> qemu_;
  std::unique_ptr<Client> client_;
  int connections_ = 0;
  std::vector<std::string> events_;
  std::vector<std::string> reasons_;
};

TEST_F(QmpClient, WaitsForAQemuThatComesLaterAndComesBack) {
  start();
  ASSERT_TRUE(until([&] { return !reasons_.empty(); }));
  EXPECT_THAT(reasons_.front(), HasSubstr(path_));
  std::string refusal;
  client_->execute(query_status(), [&](Result<Fields> got) { refusal = got ? "answered" : got.error().message; });
  EXPECT_TRUE(until([&] { return !refusal.empty(); }));
  EXPECT_THAT(refusal, HasSubstr("no QEMU answers"));
  qemu();
  client_->connect_now();
  ASSERT_TRUE(until([&] { return connections_ == 1; }));
  qemu_.reset();
  ASSERT_TRUE(until([&] { return reasons_.size() == 2; }));
  qemu();
  ASSERT_TRUE(until([&] { return connections_ == 2; }));
}

TEST_F(QmpClient, ConnectionThatEndsIsOpenedAgainAndWhatWasAskedIsLost) {
  qemu();
  start();
  ASSERT_TRUE(until([&] { return connections_ == 1; }));
  qemu().be_silent();
  std::optional<ErrorKind> kind;
  client_->execute(query_status(), [&](Result<Fields> got) { kind = got ? ErrorKind::Failed : got.error().kind; });
  qemu_.reset();
  qemu();
  ASSERT_TRUE(until([&] { return connections_ == 2; }));
  EXPECT_EQ(kind, ErrorKind::Reconnect);
}

TEST_F(QmpClient, WhatIsNoProtocolEndsTheConnection) {
  for (const std::string& line : {std::string("nonsense"), std::string(R"({"return": {}, "id": 77})"),
                                  std::string(R"({"error": {"desc": "what?"}})"), std::string("endless")}) {
    qemu_.reset();
    qemu();
    start({.first_delay = std::chrono::seconds(60)});
    connections_ = 0;
    reasons_.clear();
    ASSERT_TRUE(until([&] { return connections_ == 1; }));
    if (line == "endless") {
      constexpr std::size_t kPiece = 65536;
      for (std::size_t i = 0; i <= kMaximumLine / kPiece; ++i) {
        const auto when = std::chrono::milliseconds(5 * i);  // as the buffer of the socket takes it
        loop_.call_after(when, [this] { qemu().say_bytes(std::string(kPiece, 'x')); });
      }
    } else {
      qemu().say(line);
    }
    ASSERT_TRUE(until([&] { return !reasons_.empty(); })) << line;
    EXPECT_FALSE(client_->connected());
  }
}

TEST_F(QmpClient, SilentQemuIsGivenUp) {
  qemu().be_silent();
  start({.answer_deadline = std::chrono::milliseconds(30)});
  ASSERT_TRUE(until([&] { return !reasons_.empty(); }));
  EXPECT_THAT(reasons_.front(), HasSubstr("another client"));
}

TEST_F(QmpClient, MayGoAwayInsideItsOwnCallback) {
  qemu();
  client_ = make_client(path_, loop_);
  bool gone = false;
  client_->start({.on_connected = [&](const std::string&) {
    client_.reset();
    gone = true;
  }});
  EXPECT_TRUE(until([&] { return gone; }));
  client_ = make_client(path_, loop_);
  gone = false;
  client_->start({.on_connected = [&](const std::string&) {
    client_->execute(query_status(), [&](Result<Fields>) {
      client_.reset();
      gone = true;
    });
  }});
  EXPECT_TRUE(until([&] { return gone; }));
}

}  // namespace
}  // namespace sami::tde::qmp
