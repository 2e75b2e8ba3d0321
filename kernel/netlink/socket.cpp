#include "kernel/netlink/socket.h"

#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>

namespace sami::netlink {

namespace {

constexpr std::size_t kDatagramBytes = 256 * 1024;
constexpr timeval kReceiveTimeout{10, 0};

tl::unexpected<Error> system_failure(std::string_view what, int error) {
  const bool unsupported = error == EPROTONOSUPPORT || error == EPERM || error == EACCES;
  return failure(unsupported ? ErrorKind::Unsupported : ErrorKind::Failed,
                 fmt::format("netlink netfilter socket: {}: {}", what, std::strerror(error)), error);
}

}  // namespace

void Socket::Closer::operator()(mnl_socket* socket) const { mnl_socket_close(socket); }

Result<Socket> Socket::open(int receive_buffer_bytes, const std::vector<int>& groups) {
  Socket opened;
  opened.socket_.reset(mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC));
  if (!opened.socket_) return system_failure("open", errno);
  if (mnl_socket_bind(opened.socket_.get(), 0, MNL_SOCKET_AUTOPID) < 0) return system_failure("bind", errno);

  const int file = mnl_socket_get_fd(opened.socket_.get());
  const int size = receive_buffer_bytes;
  if (setsockopt(file, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0) {
    setsockopt(file, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  }
  const int on = 1;
  setsockopt(file, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  setsockopt(file, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  if (setsockopt(file, SOL_SOCKET, SO_RCVTIMEO, &kReceiveTimeout, sizeof kReceiveTimeout) < 0) {
    return system_failure("SO_RCVTIMEO", errno);
  }
  for (const int group : groups) {
    if (setsockopt(file, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0) {
      return system_failure(fmt::format("join group {}", group), errno);
    }
  }
  opened.buffer_.resize(kDatagramBytes);
  return opened;
}

Result<void> Socket::send(Bytes datagram) {
  while (mnl_socket_sendto(socket_.get(), datagram.data(), datagram.size()) < 0) {
    if (errno != EINTR) return system_failure("send", errno);
  }
  return {};
}

Result<Bytes> Socket::receive(bool blocking) {
  const int file = mnl_socket_get_fd(socket_.get());
  for (;;) {
    sockaddr_nl from{};
    iovec part{buffer_.data(), buffer_.size()};
    msghdr header{};
    header.msg_name = &from;
    header.msg_namelen = sizeof from;
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    const ssize_t size = recvmsg(file, &header, blocking ? 0 : MSG_DONTWAIT);
    if (size >= 0) {
      if (from.nl_pid != 0) continue;
      if (header.msg_flags & MSG_TRUNC) return system_failure("receive", EMSGSIZE);
      return Bytes(buffer_.data(), static_cast<std::size_t>(size));
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN && !blocking) return Bytes();
    if (errno == EAGAIN) return failure(ErrorKind::Reconnect, "netlink netfilter socket: no answer in 10 s", ETIMEDOUT);
    if (errno == ENOBUFS) return failure(ErrorKind::Retry, "netlink netfilter socket: messages were lost", ENOBUFS);
    return system_failure("receive", errno);
  }
}

}  // namespace sami::netlink
