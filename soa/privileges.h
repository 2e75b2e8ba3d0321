// What sami-soa may do. While it runs it needs CAP_NET_ADMIN, in the user namespace of its network namespace, and
// nothing else: ctnetlink, and net.netfilter.* settings (files of root, where the kernel checks the capability). Exact
// TCP windows need more while they are opened (soa/windows.h), before anything is read from outside. Its folders and
// keys belong to the user it runs as.
#pragma once

#include "runtime/result.h"

namespace sami::soa {

// Gives up every other capability, for good, and the means to get more (no_new_privs). Call it while the process has
// one thread: capabilities belong to threads. Error: Failed (CAP_NET_ADMIN is missing; it says how to give it).
Result<void> keep_net_admin_only();

}  // namespace sami::soa
