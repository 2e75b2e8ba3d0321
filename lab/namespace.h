// Network namespaces by name, as `ip netns` keeps them (/run/netns/<name>).
//
// Threading: every call may be made from any thread; the calling thread's own namespace never changes. Blocking: all
// calls block for as long as the kernel takes (creating one: about 1 ms).
// Kernel: CLONE_NEWNET, bind mounts; needs CAP_SYS_ADMIN.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/result.h"

namespace sami::lab {

// Errors: Failed when the name is taken or the kernel refuses.
Result<void> create_namespace(const std::string& name);

// Removes the name; the kernel ends the namespace with its last process. A name that does not exist is no error.
Result<void> remove_namespace(const std::string& name);

bool namespace_exists(const std::string& name);
std::vector<std::string> list_namespaces();

// Identifies the namespace behind a name, or that of a process (0: none, or not readable). Equal means the same one.
std::uint64_t namespace_identity(const std::string& name);
std::uint64_t namespace_identity_of_process(int pid);

// Runs `action` on a thread of its own inside the namespace and waits for it. An empty name: where the caller is.
// What the action starts (processes, sockets) stays in the namespace. Error: Failed when it cannot be entered.
Result<void> inside_namespace(const std::string& name, const std::function<void()>& action);

// Writes a kernel setting of the namespace, for example {"net.ipv4.ip_forward", "1"}. Error: Unsupported when the
// kernel has no such setting, Failed when it refuses the value.
Result<void> set_sysctl(const std::string& name, const std::string& key, const std::string& value);

}  // namespace sami::lab
