// The driver of state class connection_tracking over ctnetlink: state/driver.h for netlink::Conntrack.
//
// Established TCP is imported with BE_LIBERAL on both directions, for the entry's life: its hidden window state cannot
// be carried yet, and a strict import without it hangs bulk transfers. Every TCP record is therefore reported as
// reduced. needs_barrier is false for the same reason, and raise_barrier and lower_barrier do nothing, successfully.
//
// Which entries are the subject's: one of the two ends is an address of an interface (provisioned, or within its
// learned_within prefixes), in the zone of the interface's VN. An end is the source of the original tuple (the subject
// originates; the peer is the reply's source) or the source of the reply tuple (the subject responds; the peer is the
// original's source). Addresses that are only translated to are nobody's end.
//
// A destination installs an entry with a timeout of at least `hold`: a refresh at the source emits no event, and a
// short one would die in a long pre-copy. The first packet sets it to its normal value; settle() gives those that saw
// none the timeout they had. After a restart of the driver settle() leaves them: they end after `hold` at the latest.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernel/netlink/conntrack.h"
#include "runtime/clock.h"
#include "state/driver.h"

namespace sami::state {

// An address that this host translates to.
struct ExternalAddress {
  netlink::IpAddress address;
  bool moves_with_subject = false;  // otherwise shared: it stays with its host
};

struct ConnectionTrackingConfig {
  // Context name -> VN name -> conntrack zone. A VN that is not named has no state on this host.
  std::map<std::string, std::map<std::string, std::uint16_t>> contexts;
  std::vector<ExternalAddress> external_addresses;
  std::uint64_t capacity = 200'000;  // records that migrations which are not settled yet may have installed here
  std::uint32_t hold_seconds = 3'600;
  std::size_t maximum_changes = 1U << 18;  // keys remembered per followed scope; more is an overrun
};

// `conntrack` and `clock` outlive the driver.
std::unique_ptr<Driver> make_connection_tracking_driver(netlink::Conntrack& conntrack, ConnectionTrackingConfig config,
                                                        const Clock& clock = system_clock());

}  // namespace sami::state
