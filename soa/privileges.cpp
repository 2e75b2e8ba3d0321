#include "soa/privileges.h"

#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace sami::soa {

Result<void> keep_net_admin_only() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) {
    return failure(ErrorKind::Failed, fmt::format("capget: {}", std::strerror(errno)), errno);
  }
  constexpr std::uint32_t kNetAdmin = 1U << CAP_NET_ADMIN;
  if ((sets[0].permitted & kNetAdmin) == 0) {
    return failure(ErrorKind::Failed,
                   "CAP_NET_ADMIN is missing; start sami-soa by its unit (AmbientCapabilities=), or as root", EPERM);
  }
  // Only with CAP_SETPCAP; without it there is nothing in the bounding set that could be gained (no_new_privs).
  for (int capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if (capability != CAP_NET_ADMIN) ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  }
  sets[0] = {kNetAdmin, kNetAdmin, 0};
  sets[1] = {};
  if (::syscall(SYS_capset, &header, sets.data()) != 0) {
    return failure(ErrorKind::Failed, fmt::format("capset: {}", std::strerror(errno)), errno);
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return failure(ErrorKind::Failed, fmt::format("prctl(PR_SET_NO_NEW_PRIVS): {}", std::strerror(errno)), errno);
  }
  return {};
}

}  // namespace sami::soa
