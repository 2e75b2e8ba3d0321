// A datagram from a netlink socket: messages, acknowledgements, entries.
#include "kernel/netlink/message.h"
#include "tests/fuzz/inputs.h"

using namespace sami;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto split = netlink::split_messages({data, size}, [&](const netlink::Message& message) {
    const auto acknowledgement = netlink::parse_acknowledgement(message);
    if (acknowledgement && acknowledgement->error < 0) fuzz::broken("a negative errno");
    const auto netfilter = netlink::parse_netfilter(message);
    if (netfilter) (void)netlink::decode_entry(netfilter->family, netfilter->attributes);
  });
  if (!split && split.error().message.empty()) fuzz::broken("an error without words");
  return 0;
}
