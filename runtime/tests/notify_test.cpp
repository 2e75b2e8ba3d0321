#include "runtime/notify.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/tests/folder.h"

namespace sami {
namespace {

class NotifyTest : public sami::testing::FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    const std::string path = folder_ + "/notify";
    socket_ = socket(AF_UNIX, SOCK_DGRAM, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());
    ASSERT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  void TearDown() override {
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    close(socket_);
    FolderTest::TearDown();
  }
  std::string received() const {
    char buffer[512];
    const ssize_t count = recv(socket_, buffer, sizeof buffer, MSG_DONTWAIT);
    return count < 0 ? "nothing" : std::string(buffer, static_cast<std::size_t>(count));
  }
  int socket_ = -1;
};

TEST_F(NotifyTest, TellsTheServiceManager) {
  service_manager::ready();
  EXPECT_EQ(received(), "READY=1");
  service_manager::status("2 migrations\nSTOPPING=1");
  EXPECT_EQ(received(), "STATUS=2 migrations STOPPING=1");
  service_manager::alive();
  EXPECT_EQ(received(), "WATCHDOG=1");
  service_manager::reloading({5'000});
  EXPECT_EQ(received(), "RELOADING=1\nMONOTONIC_USEC=5");
  service_manager::stopping();
  EXPECT_EQ(received(), "STOPPING=1");
}

TEST_F(NotifyTest, WatchdogIsFedTwiceAsOften) {
  EXPECT_FALSE(service_manager::watchdog_interval());
  setenv("WATCHDOG_USEC", "3000000", 1);
  EXPECT_EQ(service_manager::watchdog_interval(), std::chrono::milliseconds(1500));
}

TEST_F(NotifyTest, WithoutOneNothingHappens) {
  unsetenv("NOTIFY_SOCKET");
  service_manager::ready();
  EXPECT_EQ(received(), "nothing");
}

}  // namespace
}  // namespace sami
