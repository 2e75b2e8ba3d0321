#include "lab/daemons.h"

#include "lab/lab.h"

namespace sami::lab {

Result<std::vector<DaemonRecord>> prepare_daemons(const Lab&) {
  return failure(ErrorKind::Unsupported, "this build has no daemons; use --no-sami");
}

Result<void> wait_until_ready(const DaemonRecord&, std::chrono::milliseconds) { return {}; }

Result<void> wait_until_connected(const Lab&, std::chrono::milliseconds) { return {}; }

}  // namespace sami::lab
