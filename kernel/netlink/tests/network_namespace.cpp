#include "kernel/netlink/tests/network_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace sami::netlink::test {

NetworkNamespace::NetworkNamespace() {
  home_ = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  entered_ = home_ >= 0 && ::unshare(CLONE_NEWNET) == 0;
  if (!entered_) reason_ = std::string("no network namespace can be made here: ") + std::strerror(errno);
  if (entered_ && ::access("/proc/sys/net/netfilter/nf_conntrack_events", F_OK) != 0) {
    reason_ = "this kernel has no nf_conntrack, or it is not loaded";
  }
}

NetworkNamespace::~NetworkNamespace() {
  if (entered_ && ::setns(home_, CLONE_NEWNET) != 0) std::abort();
  if (home_ >= 0) ::close(home_);
}

}  // namespace sami::netlink::test
