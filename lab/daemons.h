// The daemons of SAMI in a lab: certificates, configurations, and whether they are ready.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "lab/store.h"
#include "runtime/result.h"

namespace sami::lab {

class Lab;

// Makes certificates and configurations in the lab's folder. Starts nothing. In the order of starting.
Result<std::vector<DaemonRecord>> prepare_daemons(const Lab& lab);

// Polls the control socket until the daemon answers. Error: Failed with the end of its log when it ends instead, or
// when the deadline passes.
Result<void> wait_until_ready(const DaemonRecord& daemon,
                              std::chrono::milliseconds deadline = std::chrono::seconds(15));

// Until agents and TDE say that they are connected to the master. Errors as above.
Result<void> wait_until_connected(const Lab& lab, std::chrono::milliseconds deadline = std::chrono::seconds(15));

}  // namespace sami::lab
