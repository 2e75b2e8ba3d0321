// The TCP windows that the kernel's connection tracking keeps (struct ip_ct_tcp_state,
// include/linux/netfilter/nf_conntrack_tcp.h; net/netfilter/nf_conntrack_proto_tcp.c, tcp_in_window) and shows nobody:
// read by a BPF program, written by synthetic segments that conntrack sees and a rule drops right behind it; the
// barrier behind which they stand still; and a tracker that tells which of them moved. A kernel twin (kernel_windows.h)
// and an in-memory one (memory_windows.h) with one conformance suite.
//
// Not thread-safe: one owner, one thread, in the network namespace in which the twin was opened. Calls block while the
// kernel works.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernel/netlink/conntrack.h"
#include "runtime/result.h"

namespace sami::windows {

// What one end has sent. Sequence numbers, modulo 2^32.
struct WindowDirection {
  std::uint32_t end = 0;             // td_end: the highest sequence number it sent, plus its length
  std::uint32_t maximum_end = 0;     // td_maxend: the highest that the other end's window allows
  std::uint32_t maximum_window = 0;  // td_maxwin: the largest window it advertised, unscaled; 0: it never spoke
  std::uint32_t maximum_acknowledgement = 0;  // td_maxack; meaningless without MAXACK_SET
  std::uint8_t scale = 0;
  std::uint8_t flags = 0;  // IP_CT_TCP_FLAG_*
  friend bool operator==(const WindowDirection&, const WindowDirection&) = default;
};
struct TcpWindow {
  WindowDirection original, reply;
  friend bool operator==(const TcpWindow&, const TcpWindow&) = default;
};

// True when what was read after a write stands for what was asked: ends and acknowledgements equal, the windows not
// smaller, and larger only by what the scale's granularity and the segments' grammar cost (see write).
bool stands_for(const TcpWindow& found, const TcpWindow& wanted);
// Whether a window can be written elsewhere: both ends have spoken, or the first one only (a SYN), neither is liberal.
bool is_exact(const TcpWindow& window);

// Whether an entry with the windows `standing` can be given the later ones in place, the way packets would move them.
bool can_advance(const TcpWindow& standing, const TcpWindow& wanted);

struct WindowWrite {
  netlink::ConntrackTuple original, reply;  // reply: as the kernel shows it, translated
  std::uint16_t zone = 0;
  TcpWindow window;  // scales and SACK_PERM count for a SYN only; otherwise the entry has them already
  std::optional<TcpWindow> standing{};  // to advance from; otherwise the entry has none
};

class TcpWindows {
 public:
  virtual ~TcpWindows() = default;
  // Unsupported, and why not: no BTF, no kfunc, a missing capability, no table of one's own.
  virtual Result<void> available() const = 0;
  // One result per key, in order; nullopt: there is no such TCP connection by its original tuple, or a flow table moves
  // its packets past conntrack, or its zone cannot be read. Cost: below 1 us per key, 1,024 keys a system call.
  virtual Result<std::vector<std::optional<TcpWindow>>> read(const std::vector<netlink::ConntrackKey>& keys) = 0;
  // Writes the windows of entries that stand here and have none (both maximum_window are 0: just created by ctnetlink,
  // by a strict or a liberal import, and no packet since). Others are not changed, or not to what was asked: read back.
  //
  // The segments are seen by the entry as traffic of its own: they refresh its timeout, may change its state (a bare
  // ACK: SYN_RECV, FIN_WAIT, LAST_ACK) and make it ASSURED when it is not and in SYN_RECV or ESTABLISHED. The caller
  // sets state, flags and timeout by an update afterwards, and imports what must not become ASSURED as CLOSE_WAIT. One
  // whose reply end never spoke must stand as SYN_SENT. Nothing of it leaves the host: the segments go to the loopback
  // device, are dropped in the output hook, and have an invalid checksum.
  //
  // An error means that any subset may have been written.
  virtual Result<void> write(const std::vector<WindowWrite>& writes) = 0;
};

// Packets to and from an address, in a conntrack zone.
struct Place {
  std::uint16_t zone = 0;
  netlink::IpAddress address;
  friend auto operator<=>(const Place&, const Place&) = default;
};

// While it is up for a place, packets from and to it are dropped after conntrack has seen them and before anyone
// receives them: in the forward, input and output hooks, where translated packets bear the inside address. What is
// read after raise() has returned therefore covers every packet that was ever delivered.
class Barrier {
 public:
  virtual ~Barrier() = default;
  // For a place that is up already the timeout starts anew. The kernel lowers it by itself after the timeout, and when
  // the process that raised it ends.
  virtual Result<void> raise(const std::vector<Place>& places, std::chrono::milliseconds timeout) = 0;
  // Places that are not up are none of its business.
  virtual Result<void> lower(const std::vector<Place>& places) = 0;
};

// Which TCP connections had a packet, so that only those need be looked at again. A packet is noted behind conntrack
// and before the barrier: what take() does not name, once the barrier is up, has the windows it had.
class PacketTracker {
 public:
  virtual ~PacketTracker() = default;
  // Unsupported, and why not (BPF netfilter programs: Linux 6.4).
  virtual Result<void> available() const = 0;
  // From now on the connections are noted that have an end at one of these places (the source of the original or of the
  // reply tuple), or all of them. Replaces what was watched; with nothing to watch packets cost nothing.
  virtual Result<void> watch(const std::vector<Place>& places, bool everything = false) = 0;
  struct Noted {
    netlink::ConntrackKey key;
    netlink::ConntrackTuple reply;
  };
  struct Taken {
    std::vector<Noted> connections;  // since the last call
    bool overrun = false;            // there were more: any may have had a packet
  };
  virtual Result<Taken> take() = 0;
};

}  // namespace sami::windows
