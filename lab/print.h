// A lab for people and for programs. Pure.
#pragma once

#include <string>

#include "lab/hypervisor.h"
#include "lab/lab.h"

namespace sami::lab {

// One JSON object: name, usecase, nat, folder, vms with their places, nodes with namespace, addresses and, where one
// runs, the daemon: config, control socket, pid, log.
std::string lab_as_json(const Lab& lab);
std::string lab_as_text(const Lab& lab);

std::string move_as_json(const MoveReport& report);
std::string move_as_text(const MoveReport& report);

}  // namespace sami::lab
