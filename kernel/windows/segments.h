// What a synthetic segment says, which ones make an entry's windows, and what conntrack makes of them: a model of
// tcp_in_window (net/netfilter/nf_conntrack_proto_tcp.c) for segments without data. Pure. Private to kernel/windows.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel/windows/windows.h"

namespace sami::windows {

struct Segment {
  bool from_reply = false;  // sent by the reply end
  bool syn = false;         // with the options of `scale` and `sack`; otherwise a bare ACK
  std::uint32_t sequence = 0, acknowledgement = 0;
  std::uint16_t window = 0;  // as on the wire
  std::uint8_t flags = 0;    // of a SYN: IP_CT_TCP_FLAG_WINDOW_SCALE, SACK_PERM
  std::uint8_t scale = 0;    // of a SYN
};

// The segments that lead from no windows to these. maximum_window is rounded up to the scale and at most
// 65535 << scale (no end can use more); maximum_end is exact where the acknowledgement that it takes is acceptable to
// conntrack, otherwise at most one window larger.
std::vector<Segment> segments_for(const TcpWindow& window);

// The segments that lead from the first to the second; empty when no few do.
std::vector<Segment> segments_between(const TcpWindow& standing, const TcpWindow& wanted);

// Either, as the write says.
std::vector<Segment> segments_of(const WindowWrite& write);

// False: conntrack takes the segment for INVALID, nothing changed.
bool apply(const Segment& segment, TcpWindow& window);

// The octets of the segment: an IP and a TCP header, with a TCP checksum that no receiver accepts.
std::vector<std::uint8_t> packet_of(const Segment& segment, const netlink::ConntrackTuple& tuple);

}  // namespace sami::windows
