// The kernel twin of windows.h: BPF programs (reader.bpf.c, tracker.bpf.c), raw sockets, and the table `inet sami`.
//
// Opening needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN as well where conntrack is a module
// and its BTF therefore a module's); afterwards CAP_NET_ADMIN is enough. Kernel 5.18 with BTF; zones other than
// 0: 6.10.
#pragma once

#include <memory>

#include "kernel/windows/windows.h"

namespace sami::windows {

struct KernelWindows {
  std::unique_ptr<TcpWindows> windows;
  std::unique_ptr<Barrier> barrier;
  std::unique_ptr<PacketTracker> tracker;
};

// In the calling thread's network namespace. Never fails: where something is missing windows->available() says what,
// and every other call gives the same error. The tracker may be missing while the others work.
KernelWindows open_kernel_windows();

}  // namespace sami::windows
