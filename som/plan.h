// What would stand in the way of a move, judged by what the State Hosts registered. Pure.
//
// It sees profiles, not state: whether the VM uses an external address is not known here, so an address that moves with
// its subject and is missing at the destination is reported, and one that is shared at the source is not (the
// destination's verdict on the records themselves decides). Capacity is likewise the destination's to judge.
#pragma once

#include <vector>

#include "interfaces/common/common.pb.h"
#include "protocol/som.h"

namespace sami::som {

// In the order of the transfers, each finding once. A transfer from a host and context to itself needs nothing.
std::vector<common::v1::Finding> findings(const common::v1::Subject& subject,
                                          const std::vector<common::v1::Transfer>& transfers,
                                          const std::vector<common::v1::ClassRequirement>& classes,
                                          const std::vector<protocol::HostView>& hosts);

}  // namespace sami::som
