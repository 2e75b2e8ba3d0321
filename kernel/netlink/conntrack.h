// ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c): connection
// entries as values, and a table that holds them, with a real twin (the kernel of one network namespace) and an
// in-memory twin that behaves as the kernel was measured to. One conformance suite runs on both.
//
// Capability: CAP_NET_ADMIN in the namespace's user namespace. Minimum kernel 5.8 (CTA_FILTER). Not thread-safe: one
// owner, one thread; calls block for the kernel, at most 10 s in all.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/result.h"

namespace sami::netlink {

// IPv4 addresses use the first 4 octets.
struct IpAddress {
  std::uint8_t family = 0;                    // AF_INET or AF_INET6; 0: none
  std::array<std::uint8_t, 16> octets{};
  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;
};

struct ConntrackTuple {
  IpAddress source, destination;
  std::uint8_t protocol = 0;                  // IPPROTO_*
  std::uint16_t source_port = 0;              // host order; ICMP: id
  std::uint16_t destination_port = 0;         // ICMP: type << 8 | code
  friend auto operator<=>(const ConntrackTuple&, const ConntrackTuple&) = default;
};
ConntrackTuple mirror(const ConntrackTuple& tuple);

struct ConntrackTcp {
  std::uint8_t state = 0;                     // enum tcp_conntrack
  std::uint8_t scale_original = 0, scale_reply = 0;
  std::uint8_t flags_original = 0, flags_reply = 0;   // IP_CT_TCP_FLAG_*
  friend bool operator==(const ConntrackTcp&, const ConntrackTcp&) = default;
};

// One entry as the kernel dumps it: reply is the translated tuple.
struct ConntrackEntry {
  ConntrackTuple original, reply;
  std::uint16_t zone = 0;
  std::uint32_t status = 0;                   // IPS_*
  std::uint32_t timeout = 0;                  // seconds left
  std::uint32_t mark = 0;
  std::uint32_t id = 0;                       // CTA_ID, 0 when absent
  std::optional<ConntrackTcp> tcp;
  std::string helper;
  std::vector<std::uint8_t> labels;
  std::uint64_t packets_original = 0, bytes_original = 0, packets_reply = 0, bytes_reply = 0;  // 0 without acct
};

struct ConntrackKey {
  ConntrackTuple original;
  std::uint16_t zone = 0;
  friend auto operator<=>(const ConntrackKey&, const ConntrackKey&) = default;
};

// A kernel-side filter: each set field must match exactly. Only these attributes are ever sent (an attribute that the
// kernel does not know is silently ignored, and on a delete that would flush the table).
struct ConntrackFilter {
  std::uint8_t family = 0;                    // required
  std::optional<IpAddress> original_source, original_destination, reply_source, reply_destination;
  std::optional<std::uint16_t> zone;
};

enum class EventKind { New, Update, Destroy };
struct ConntrackEvent {
  EventKind kind = EventKind::New;
  ConntrackKey key;
  ConntrackTuple reply;
};

enum class ConntrackOperation {
  Create,     // CREATE|EXCL: EEXIST when the key, or the translated reply tuple, is taken
  Update,     // no CREATE: ENOENT when it is not there; NAT, and ASSURED once set, do not change
  Delete,     // exact key; with id != 0 only that very entry. ENOENT when it is not there
};
struct ConntrackRequest {
  ConntrackOperation operation = ConntrackOperation::Create;
  ConntrackEntry entry;                       // Delete: original, zone and id count
};

// CTA_* payloads, without netlink headers. Pure; for the real table, tests and fuzzing.
Result<ConntrackEntry> decode_entry(std::uint8_t family, std::span<const std::uint8_t> attributes);
// What Create or Update sends for the entry: mirrored reply plus CTA_NAT_* where it is translated, flags mask 0x0f,
// CTA_STATUS reduced to bits the kernel takes. See docs of conntrack.cpp for each trap.
std::vector<std::uint8_t> encode_entry(const ConntrackEntry& entry, ConntrackOperation operation);

class ConntrackTable {
 public:
  virtual ~ConntrackTable() = default;
  // Calls sink for each entry that matches; order undefined. A resized table may show an entry twice.
  virtual Result<void> dump(const ConntrackFilter& filter, const std::function<void(const ConntrackEntry&)>& sink) = 0;
  // One result per key, in order; nullopt: not there. Batched.
  virtual Result<std::vector<std::optional<ConntrackEntry>>> get(const std::vector<ConntrackKey>& keys) = 0;
  // One errno per request (0: done), in order. Batched; requests are independent and take effect in order.
  virtual Result<std::vector<int>> apply(const std::vector<ConntrackRequest>& requests) = 0;
  virtual Result<std::uint64_t> count() = 0;
};

// A subscription to NEW, UPDATE and DESTROY. Exists only while somebody follows: it costs nothing otherwise.
class ConntrackEvents {
 public:
  virtual ~ConntrackEvents() = default;
  // Takes what is queued, without blocking. Retry (ENOBUFS) when events were lost: the subscription goes on, but only a
  // dump is true.
  virtual Result<std::vector<ConntrackEvent>> drain() = 0;
};

// Makes both; the factory is what a driver is given.
class Conntrack {
 public:
  virtual ~Conntrack() = default;
  virtual ConntrackTable& table() = 0;
  virtual Result<std::unique_ptr<ConntrackEvents>> subscribe() = 0;
};

// The kernel of the calling thread's network namespace. Sets net.netfilter.nf_conntrack_events=1 (an entry made while
// it was 2 and nobody listened never emits an event) and checks by a self-test that the kernel honours CTA_FILTER.
Result<std::unique_ptr<Conntrack>> open_kernel_conntrack();

}  // namespace sami::netlink
