// Netlink messages (include/uapi/linux/netlink.h): what a datagram from the kernel holds, and how a request is put
// together. Pure; hard against garbage.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernel/netlink/attributes.h"
#include "runtime/result.h"

namespace sami::netlink {

struct Message {
  std::uint16_t type = 0;
  std::uint16_t flags = 0;
  std::uint32_t sequence = 0;
  std::uint32_t port = 0;
  Bytes payload;  // after struct nlmsghdr
};

// Calls sink for each message of the datagram. Corrupt when a length does not fit; what came before has been given.
Result<void> split_messages(Bytes datagram, const std::function<void(const Message&)>& sink);

// NLMSG_ERROR and NLMSG_DONE: errno (0: an acknowledgement) and the kernel's words (NETLINK_EXT_ACK), if any.
struct Acknowledgement {
  int error = 0;
  std::string text;
};
Result<Acknowledgement> parse_acknowledgement(const Message& message);

// A nfnetlink message (struct nfgenmsg first): its family and attributes.
struct NetfilterMessage {
  std::uint8_t family = 0;
  Bytes attributes;
};
Result<NetfilterMessage> parse_netfilter(const Message& message);

// Appends one nfnetlink request to a datagram. NLM_F_REQUEST is set.
void append_request(std::vector<std::uint8_t>& datagram, std::uint16_t type, std::uint16_t flags,
                    std::uint32_t sequence, std::uint8_t family, Bytes attributes);

}  // namespace sami::netlink
