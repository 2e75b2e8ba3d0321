// A NETLINK_NETFILTER socket of the network namespace that the calling thread was in when it was opened (libmnl).
//
// Not thread-safe. A receive waits at most 10 s. Large receive buffers need CAP_NET_ADMIN; without it the socket takes
// what it gets.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernel/netlink/attributes.h"
#include "runtime/result.h"

struct mnl_socket;

namespace sami::netlink {

class Socket {
 public:
  // groups: NFNLGRP_* to listen to. Errors: Unsupported (no nfnetlink in this kernel, or not permitted), Failed.
  static Result<Socket> open(int receive_buffer_bytes, const std::vector<int>& groups = {});

  Result<void> send(Bytes datagram);
  // One datagram; valid until the next call. Retry with ENOBUFS when datagrams were lost, Reconnect with ETIMEDOUT
  // after 10 s. Non-blocking: an empty span when nothing is there.
  Result<Bytes> receive(bool blocking);

 private:
  struct Closer {
    void operator()(mnl_socket* socket) const;
  };
  std::unique_ptr<mnl_socket, Closer> socket_;
  std::vector<std::uint8_t> buffer_;
};

}  // namespace sami::netlink
