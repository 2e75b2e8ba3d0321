// The loopback device of a test's namespace, and a TCP connection over it.
#pragma once

#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <string>

namespace sami::windows::test {

inline void set_up_loopback() {
  const int file = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  request.ifr_name[0] = 'l';
  request.ifr_name[1] = 'o';
  request.ifr_flags = IFF_UP;
  ASSERT_EQ(::ioctl(file, SIOCSIFFLAGS, &request), 0);
  ::close(file);
}

class LoopbackConnection {
 public:
  LoopbackConnection() {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {}};
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener, 1), 0);
    EXPECT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
    client_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(::connect(client_, reinterpret_cast<sockaddr*>(&address), size), 0);
    server_ = ::accept(listener, nullptr, nullptr);
    EXPECT_GE(server_, 0);
    ::close(listener);
  }
  ~LoopbackConnection() {
    ::close(client_);
    ::close(server_);
  }
  LoopbackConnection(const LoopbackConnection&) = delete;
  LoopbackConnection& operator=(const LoopbackConnection&) = delete;

  void send(std::size_t octets) {
    const std::string data(octets, 'x');
    EXPECT_EQ(::send(client_, data.data(), data.size(), MSG_NOSIGNAL), static_cast<ssize_t>(octets));
  }
  // So many octets have arrived in all, by then.
  bool arrives(std::size_t octets, std::chrono::milliseconds patience) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (arrived_ < octets) {
      const auto left = std::chrono::duration_cast<std::chrono::microseconds>(end - std::chrono::steady_clock::now());
      if (left.count() <= 0) return false;
      const timeval limit{left.count() / 1'000'000, left.count() % 1'000'000};
      ::setsockopt(server_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      char buffer[4096];
      const ssize_t size = ::recv(server_, buffer, sizeof buffer, 0);
      if (size > 0) arrived_ += static_cast<std::size_t>(size);
    }
    return true;
  }

 private:
  int client_ = -1, server_ = -1;
  std::size_t arrived_ = 0;
};

}  // namespace sami::windows::test
