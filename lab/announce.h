// Says on an Ethernet segment which MAC address an IPv4 address has now (gratuitous ARP, RFC 5227 section 3), so that
// neighbours which know it elsewhere follow at once. Blocks briefly. Kernel: AF_PACKET; needs CAP_NET_RAW.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/result.h"

namespace sami::lab {

// {device inside the namespace, address}: for each, the device's own MAC address is announced, in this order. Errors:
// InvalidInput (not an IPv4 address, no such interface), Failed.
Result<void> announce_addresses(const std::string& network_namespace,
                                const std::vector<std::pair<std::string, std::string>>& addresses);

}  // namespace sami::lab
