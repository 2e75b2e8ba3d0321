// Says on an Ethernet segment which MAC address an IPv4 address has now (gratuitous ARP, RFC 5227 section 3), so that
// neighbours which know it elsewhere follow at once. Blocks briefly. Kernel: AF_PACKET; needs CAP_NET_RAW.
#pragma once

#include <string>

#include "runtime/result.h"

namespace sami::lab {

// `device` names the interface inside the namespace; its own MAC address is announced. Errors: InvalidInput (not an
// IPv4 address, no such interface), Failed.
Result<void> announce_address(const std::string& network_namespace, const std::string& device,
                              const std::string& address);

}  // namespace sami::lab
