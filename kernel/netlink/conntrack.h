// ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c): connection
// entries as values, and a table that holds them, with a real twin (the kernel of one network namespace) and an
// in-memory twin (memory_conntrack.h) that behaves as the kernel was measured to. One conformance suite runs on both.
//
// Capability: CAP_NET_ADMIN in the namespace's user namespace. Minimum kernel 5.8 (CTA_FILTER). Not thread-safe: one
// owner, one thread; a call blocks while the kernel works, and fails with Reconnect when it is silent for 10 s. The
// owner may be in any network namespace: the sockets stay in the one they were opened in.
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
  std::uint8_t family = 0;  // AF_INET or AF_INET6; 0: none
  std::array<std::uint8_t, 16> octets{};
  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;
};
std::string to_string(const IpAddress& address);  // as inet_ntop; "none" without a family
std::optional<IpAddress> parse_address(const std::string& text);

struct ConntrackTuple {
  IpAddress source, destination;
  std::uint8_t protocol = 0;           // IPPROTO_*
  std::uint16_t source_port = 0;       // host order; ICMP, ICMPv6: id
  std::uint16_t destination_port = 0;  // ICMP, ICMPv6: type << 8 | code
  friend auto operator<=>(const ConntrackTuple&, const ConntrackTuple&) = default;
};
std::string to_string(const ConntrackTuple& tuple);  // "tcp 10.0.0.1:40000 -> 10.9.0.1:80"
bool is_icmp(std::uint8_t protocol);
// The tuple of the untranslated reply. An ICMP type that has no reply is left as it is.
ConntrackTuple mirror(const ConntrackTuple& tuple);

struct ConntrackTcp {
  std::uint8_t state = 0;  // enum tcp_conntrack
  std::uint8_t scale_original = 0, scale_reply = 0;
  std::uint8_t flags_original = 0, flags_reply = 0;  // IP_CT_TCP_FLAG_*
  friend bool operator==(const ConntrackTcp&, const ConntrackTcp&) = default;
};
// The flags that another host may be told. MAXACK_SET (0x20) without the hidden td_maxack made a firewall drop a
// legitimate RST, so the mask is never 0xff.
inline constexpr std::uint8_t kTcpFlagsMask = 0x0f;

// One entry as the kernel dumps it: reply is the translated tuple.
struct ConntrackEntry {
  ConntrackTuple original, reply;
  std::uint16_t zone = 0;     // of both directions
  std::uint32_t status = 0;   // IPS_*
  std::uint32_t timeout = 0;  // seconds left
  std::uint32_t mark = 0;
  std::uint32_t id = 0;  // CTA_ID, 0 when absent
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
ConntrackKey key_of(const ConntrackEntry& entry);
std::uint64_t hash_value(const ConntrackKey& key);  // well mixed; not stable between versions

// Each set field must match exactly. The kernel is told, and what it sends is checked again: an attribute that a kernel
// does not know is silently ignored by it. There is no delete by filter for that reason: it would flush the table.
struct ConntrackFilter {
  std::uint8_t family = 0;  // required
  std::optional<IpAddress> original_source, original_destination, reply_source, reply_destination;
  std::optional<std::uint16_t> zone;
};
bool matches(const ConntrackFilter& filter, const ConntrackEntry& entry);

enum class EventKind { New, Update, Destroy };
struct ConntrackEvent {
  EventKind kind = EventKind::New;
  ConntrackKey key;
  ConntrackTuple reply;
};

enum class ConntrackOperation {
  Create,      // CREATE|EXCL. EEXIST: the key is taken (in either direction), or the translated reply tuple is.
               // EINVAL without timeout; EBUSY without IPS_CONFIRMED; ENOMEM: table full; EOPNOTSUPP: unknown helper
  Update,      // timeout, status, mark and tcp. ENOENT when it is not there; EBUSY when it would clear ASSURED or
               // SEEN_REPLY. The translation, the helper and the labels stay as they are. timeout 0: unchanged
  SetTimeout,  // timeout only. ENOENT when it is not there
  Delete,      // the entry with this key and this id (from get or dump). ENOENT when it is not there, EINVAL without id
};
struct ConntrackRequest {
  ConntrackOperation operation = ConntrackOperation::Create;
  ConntrackEntry entry;  // SetTimeout: original, zone, timeout; Delete: original, zone, id
};

// CTA_* payloads, without netlink headers. Pure; for the real table, tests and fuzzing.
// Corrupt when it makes no sense, Unsupported for an entry whose zone is of one direction only.
Result<ConntrackEntry> decode_entry(std::uint8_t family, std::span<const std::uint8_t> attributes);
// The traps it takes care of: a translated entry is sent as its mirrored reply plus CTA_NAT_* (the translated reply
// alone would lose the NAT silently), TCP flags with mask 0x0f, CTA_STATUS reduced to kImportableStatus (DYING gives
// EBUSY, OFFLOAD is dropped), no CTA_NAT_*, CTA_HELP and CTA_LABELS in an update (EOPNOTSUPP).
std::vector<std::uint8_t> encode_entry(const ConntrackEntry& entry, ConntrackOperation operation);
// SEEN_REPLY, ASSURED, CONFIRMED.
inline constexpr std::uint32_t kImportableStatus = 0x0e;

class ConntrackTable {
 public:
  virtual ~ConntrackTable() = default;
  // Calls sink for each entry that matches; order undefined. A resized table may show an entry twice. Entries whose
  // zone is of one direction only are not shown.
  virtual Result<void> dump(const ConntrackFilter& filter, const std::function<void(const ConntrackEntry&)>& sink) = 0;
  // One result per key, in order; nullopt: not there. Only the original direction counts. Batched.
  virtual Result<std::vector<std::optional<ConntrackEntry>>> get(const std::vector<ConntrackKey>& keys) = 0;
  // One errno per request (0: done), in order. Batched; requests are independent and take effect in order. Update and
  // SetTimeout reach an entry by either direction, as in the kernel: get tells which one it is.
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
  // Entries that stood here before events were enabled never emit one, not even DESTROY: they have to be looked at.
  // True for those (and, with a chance of 2^-64, for others); false for everything when there are none.
  virtual bool is_silent(const ConntrackKey& key) const = 0;
  virtual bool has_silent() const = 0;
};

struct KernelConntrackOptions {
  int event_buffer_bytes = 32 * 1024 * 1024;
};
// The kernel of the calling thread's network namespace. Sets net.netfilter.nf_conntrack_events=1 (an entry made while
// it was 2 and nobody listened never emits an event; those that stand here then are the silent ones), and checks that
// the kernel reads CTA_FILTER, without touching any entry. Errors: Unsupported (kernel, permission), Failed.
Result<std::unique_ptr<Conntrack>> open_kernel_conntrack(const KernelConntrackOptions& options = {});

}  // namespace sami::netlink
