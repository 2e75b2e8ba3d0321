// ctnetlink attributes: whatever decodes is encoded and decoded to the same.
#include <sys/socket.h>

#include "tests/fuzz/inputs.h"

using namespace sami;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::uint8_t family = data[0] & 1 ? AF_INET6 : AF_INET;
  const auto entry = netlink::decode_entry(family, {data + 1, size - 1});
  if (!entry) return 0;
  const auto again = netlink::decode_entry(family, netlink::encode_entry(*entry, netlink::ConntrackOperation::Create));
  if (!again || key_of(*again) != key_of(*entry) || again->mark != entry->mark)
    fuzz::broken("an entry encodes to another");
  if (again->status != (entry->status & netlink::kImportableStatus)) fuzz::broken("the status is not reduced");
  return 0;
}
