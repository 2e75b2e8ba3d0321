#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lab/generator/generator.h"

namespace sami::lab::generator {
namespace {

Result<sockaddr_in> resolve(const Options& options) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(options.port);
  if (::inet_pton(AF_INET, options.address.c_str(), &address.sin_addr) != 1) {
    return failure(ErrorKind::InvalidInput, fmt::format("'{}' is not an IPv4 address", options.address));
  }
  return address;
}

Result<int> give_up(int handle, const Options& options, const char* what) {
  const int reason = errno;
  ::close(handle);
  const auto text = fmt::format("cannot {} {}:{}: {}", what, options.address, options.port, std::strerror(reason));
  return failure(ErrorKind::Failed, text, reason);
}

}  // namespace

Result<int> open_server(const Options& options, int type) {
  const auto address = resolve(options);
  if (!address) return tl::unexpected(address.error());
  const int handle = ::socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int yes = 1;
  ::setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(handle, reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0 ||
      (type == SOCK_STREAM && ::listen(handle, 1024) != 0)) {
    return give_up(handle, options, "listen on");
  }
  return handle;
}

Result<int> open_client(const Options& options, int type) {
  const auto address = resolve(options);
  if (!address) return tl::unexpected(address.error());
  const int handle = ::socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int yes = 1;
  if (type == SOCK_STREAM) ::setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (::connect(handle, reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0 && errno != EINPROGRESS) {
    return give_up(handle, options, "connect to");
  }
  return handle;
}

}  // namespace sami::lab::generator
