// The driver of state class connection_tracking over ctnetlink: state/driver.h for netlink::Conntrack.
//
// Windows (sequence and acknowledgement numbers). Where they can be read and written (WindowAccess), every record of a
// TCP connection carries what conntrack knows at that moment, and a key has changed when its connection had a packet.
// The final round is read behind the barrier: what is told then is what conntrack knows when the subject moves. A
// destination imports such a record strictly and writes its windows: out-of-window packets are dropped from the first
// one on. A record without windows, or one that cannot be written, is imported with BE_LIBERAL on both directions for
// the entry's life (a strict import without windows hangs bulk transfers) and reported as reduced, with the reason. So
// is everything once the subject runs at the destination (ConflictRule MOVED): the source did not stand still;
// activate() then loosens what an earlier round installed strictly.
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
#include "kernel/windows/windows.h"
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

// How windows are read and written. Where windows->available() is an error they are not carried, and where `windows` is
// null, for the reason `why_not`.
struct WindowAccess {
  windows::TcpWindows* windows = nullptr;
  windows::Barrier* barrier = nullptr;        // with windows
  windows::PacketTracker* tracker = nullptr;  // with windows
  std::string why_not = "windows are liberal here by configuration";
};

// `conntrack`, `clock` and what `access` points to outlive the driver.
std::unique_ptr<Driver> make_connection_tracking_driver(netlink::Conntrack& conntrack, ConnectionTrackingConfig config,
                                                        const Clock& clock = system_clock(), WindowAccess access = {});

}  // namespace sami::state
