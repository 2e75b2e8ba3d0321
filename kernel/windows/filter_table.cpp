#include "kernel/windows/filter_table.h"

#include <fmt/format.h>
#include <netinet/in.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <functional>

#include "kernel/netlink/attributes.h"
#include "kernel/netlink/message.h"

namespace sami::windows {

namespace {

using netlink::AttributeWriter;
using netlink::Bytes;

constexpr int kBufferBytes = 1024 * 1024;
constexpr const char* kTable = "sami";
constexpr std::uint32_t kOwner = 2;  // NFT_TABLE_F_OWNER
// The output hook's conntrack is at -200: zones are set before it, segments dropped behind it. The packet tracker is
// between the two (packet_tracker.cpp).
constexpr std::int32_t kBeforeConntrack = -300, kBehindConntrack = -198;

// `type mark . ipv4_addr` as nft numbers and prints it; a zone is 16 bits in a 32 bit field.
constexpr std::uint32_t type_of(std::uint8_t family) { return 19U << 6 | (family == AF_INET ? 7U : 8U); }
constexpr std::uint32_t address_size(std::uint8_t family) { return family == AF_INET ? 4 : 16; }
const char* set_of(std::uint8_t family) { return family == AF_INET ? "barrier4" : "barrier6"; }

std::vector<std::uint8_t> octets_of(std::uint32_t value) {  // host order, as in a register
  std::vector<std::uint8_t> octets(sizeof value);
  std::memcpy(octets.data(), &value, sizeof value);
  return octets;
}

// A list of expressions (NFTA_RULE_EXPRESSIONS).
class Expressions {
 public:
  void add(const char* name, const std::function<void(AttributeWriter&)>& data) {
    AttributeWriter writer(buffer_);
    writer.nest(NFTA_LIST_ELEM, [&] {
      writer.string(NFTA_EXPR_NAME, name);
      writer.nest(NFTA_EXPR_DATA, [&] { data(writer); });
    });
  }
  void load_meta(std::uint32_t key, std::uint32_t to) {
    add("meta", [=](AttributeWriter& w) {
      w.be32(NFTA_META_KEY, key);
      w.be32(NFTA_META_DREG, to);
    });
  }
  void mask(std::uint32_t from, std::uint32_t to, std::uint32_t mask) {
    add("bitwise", [=](AttributeWriter& w) {
      w.be32(NFTA_BITWISE_SREG, from);
      w.be32(NFTA_BITWISE_DREG, to);
      w.be32(NFTA_BITWISE_LEN, 4);
      w.nest(NFTA_BITWISE_MASK, [&] { w.bytes(NFTA_DATA_VALUE, octets_of(mask)); });
      w.nest(NFTA_BITWISE_XOR, [&] { w.bytes(NFTA_DATA_VALUE, octets_of(0)); });
    });
  }
  void equals(std::uint32_t reg, const std::vector<std::uint8_t>& value) {
    add("cmp", [&](AttributeWriter& w) {
      w.be32(NFTA_CMP_SREG, reg);
      w.be32(NFTA_CMP_OP, NFT_CMP_EQ);
      w.nest(NFTA_CMP_DATA, [&] { w.bytes(NFTA_DATA_VALUE, value); });
    });
  }
  void drop() {
    add("immediate", [](AttributeWriter& w) {
      w.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
      w.nest(NFTA_IMMEDIATE_DATA, [&] { w.nest(NFTA_DATA_VERDICT, [&] { w.be32(NFTA_VERDICT_CODE, NF_DROP); }); });
    });
  }
  // meta mark & kMarkMask == kMark
  void is_marked() {
    load_meta(NFT_META_MARK, NFT_REG32_00);
    mask(NFT_REG32_00, NFT_REG32_01, kMarkMask);
    equals(NFT_REG32_01, octets_of(kMark));
  }
  // The register's first two octets are what `ct zone set` takes.
  void set_zone_from_mark() {
    if constexpr (std::endian::native == std::endian::little) {
      mask(NFT_REG32_00, NFT_REG32_01, ~kMarkMask);
    } else {
      add("bitwise", [](AttributeWriter& w) {
        w.be32(NFTA_BITWISE_SREG, NFT_REG32_00);
        w.be32(NFTA_BITWISE_DREG, NFT_REG32_01);
        w.be32(NFTA_BITWISE_LEN, 4);
        w.be32(NFTA_BITWISE_OP, NFT_BITWISE_LSHIFT);
        w.nest(NFTA_BITWISE_DATA, [&] { w.bytes(NFTA_DATA_VALUE, octets_of(16)); });
      });
    }
    add("ct", [](AttributeWriter& w) {
      w.be32(NFTA_CT_KEY, NFT_CT_ZONE);
      w.be32(NFTA_CT_SREG, NFT_REG32_01);
    });
  }
  // ct zone . ip saddr @barrier4
  void is_behind_barrier(std::uint8_t family, bool source) {
    const bool version4 = family == AF_INET;
    load_meta(NFT_META_NFPROTO, NFT_REG32_00);
    equals(NFT_REG32_00, {static_cast<std::uint8_t>(version4 ? NFPROTO_IPV4 : NFPROTO_IPV6)});
    add("ct", [](AttributeWriter& w) {
      w.be32(NFTA_CT_KEY, NFT_CT_ZONE);
      w.be32(NFTA_CT_DREG, NFT_REG32_00);
    });
    const std::uint32_t offset = version4 ? (source ? 12 : 16) : (source ? 8 : 24);
    add("payload", [=](AttributeWriter& w) {
      w.be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER);
      w.be32(NFTA_PAYLOAD_OFFSET, offset);
      w.be32(NFTA_PAYLOAD_LEN, address_size(family));
      w.be32(NFTA_PAYLOAD_DREG, NFT_REG32_01);
    });
    add("lookup", [=](AttributeWriter& w) {
      w.string(NFTA_LOOKUP_SET, set_of(family));
      w.be32(NFTA_LOOKUP_SREG, NFT_REG32_00);
    });
  }
  const std::vector<std::uint8_t>& bytes() const { return buffer_; }

 private:
  std::vector<std::uint8_t> buffer_;
};

std::vector<std::uint8_t> chain(const char* name, std::uint32_t hook, std::int32_t priority) {
  std::vector<std::uint8_t> attributes;
  AttributeWriter writer(attributes);
  writer.string(NFTA_CHAIN_TABLE, kTable);
  writer.string(NFTA_CHAIN_NAME, name);
  writer.nest(NFTA_CHAIN_HOOK, [&] {
    writer.be32(NFTA_HOOK_HOOKNUM, hook);
    writer.be32(NFTA_HOOK_PRIORITY, static_cast<std::uint32_t>(priority));
  });
  writer.string(NFTA_CHAIN_TYPE, "filter");
  writer.be32(NFTA_CHAIN_POLICY, NF_ACCEPT);
  return attributes;
}

std::vector<std::uint8_t> rule(const char* chain_name, const Expressions& expressions) {
  std::vector<std::uint8_t> attributes;
  AttributeWriter writer(attributes);
  writer.string(NFTA_RULE_TABLE, kTable);
  writer.string(NFTA_RULE_CHAIN, chain_name);
  writer.bytes(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED, expressions.bytes());
  return attributes;
}

std::vector<std::uint8_t> set(std::uint8_t family, std::uint32_t id) {
  std::vector<std::uint8_t> attributes;
  AttributeWriter writer(attributes);
  writer.string(NFTA_SET_TABLE, kTable);
  writer.string(NFTA_SET_NAME, set_of(family));
  writer.be32(NFTA_SET_FLAGS, NFT_SET_TIMEOUT);
  writer.be32(NFTA_SET_KEY_TYPE, type_of(family));
  writer.be32(NFTA_SET_KEY_LEN, 4 + address_size(family));
  writer.be32(NFTA_SET_ID, id);
  return attributes;
}

void append_batch_mark(std::vector<std::uint8_t>& datagram, std::uint16_t type, std::uint32_t sequence) {
  const nfgenmsg netfilter{AF_UNSPEC, NFNETLINK_V0, htons(NFNL_SUBSYS_NFTABLES)};
  nlmsghdr header{};
  header.nlmsg_len = sizeof header + sizeof netfilter;
  header.nlmsg_type = type;
  header.nlmsg_flags = NLM_F_REQUEST;
  header.nlmsg_seq = sequence;
  const auto append = [&datagram](const void* data, std::size_t size) {
    const auto* first = static_cast<const std::uint8_t*>(data);
    datagram.insert(datagram.end(), first, first + size);
  };
  append(&header, sizeof header);
  append(&netfilter, sizeof netfilter);
}

}  // namespace

Result<std::unique_ptr<FilterTable>> FilterTable::create() {
  auto socket = netlink::Socket::open(kBufferBytes);
  if (!socket) return tl::unexpected(socket.error());
  std::unique_ptr<FilterTable> table(new FilterTable(std::move(*socket)));
  if (auto built = table->build(); !built) return tl::unexpected(built.error());
  return table;
}

Result<int> FilterTable::commit(const std::vector<Request>& requests) {
  std::vector<std::uint8_t> datagram;
  append_batch_mark(datagram, NFNL_MSG_BATCH_BEGIN, sequence_++);
  const std::uint32_t first = sequence_;
  for (const auto& request : requests) {
    const auto type = static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | request.message);
    netlink::append_request(datagram, type, static_cast<std::uint16_t>(request.flags | NLM_F_ACK), sequence_++,
                            NFPROTO_INET, request.attributes);
  }
  append_batch_mark(datagram, NFNL_MSG_BATCH_END, sequence_++);
  if (auto sent = socket_.send(datagram); !sent) return tl::unexpected(sent.error());
  int error = 0;
  std::size_t answered = 0;
  bool refused = false;  // the batch as a whole
  while (answered < requests.size() && !refused) {
    const auto received = socket_.receive(true);
    if (!received) return tl::unexpected(received.error());
    auto split = netlink::split_messages(*received, [&](const netlink::Message& message) {
      if (message.type != NLMSG_ERROR || message.sequence + 1 < first) return;
      const auto acknowledgement = netlink::parse_acknowledgement(message);
      if (!acknowledgement) return;
      if (message.sequence >= first) ++answered;
      refused = refused || message.sequence < first;
      if (error == 0) error = acknowledgement->error;
    });
    if (!split) return tl::unexpected(split.error());
  }
  return error;
}

Result<void> FilterTable::build() {
  std::vector<Request> requests;
  std::vector<std::uint8_t> table;
  AttributeWriter writer(table);
  writer.string(NFTA_TABLE_NAME, kTable);
  writer.be32(NFTA_TABLE_FLAGS, kOwner);
  const std::uint16_t create = NLM_F_CREATE | NLM_F_EXCL, append = NLM_F_CREATE | NLM_F_APPEND;
  requests.push_back({NFT_MSG_NEWTABLE, create, table});
  requests.push_back({NFT_MSG_NEWSET, create, set(AF_INET, 1)});
  requests.push_back({NFT_MSG_NEWSET, create, set(AF_INET6, 2)});
  requests.push_back({NFT_MSG_NEWCHAIN, create, chain("zone", NF_INET_LOCAL_OUT, kBeforeConntrack)});
  requests.push_back({NFT_MSG_NEWCHAIN, create, chain("output", NF_INET_LOCAL_OUT, kBehindConntrack)});
  requests.push_back({NFT_MSG_NEWCHAIN, create, chain("input", NF_INET_LOCAL_IN, kBehindConntrack)});
  requests.push_back({NFT_MSG_NEWCHAIN, create, chain("forward", NF_INET_FORWARD, kBehindConntrack)});
  Expressions zone;
  zone.is_marked();
  zone.set_zone_from_mark();
  requests.push_back({NFT_MSG_NEWRULE, append, rule("zone", zone)});
  Expressions segments;
  segments.is_marked();
  segments.drop();
  requests.push_back({NFT_MSG_NEWRULE, append, rule("output", segments)});
  for (const char* hook : {"output", "input", "forward"}) {
    for (const std::uint8_t family : {std::uint8_t{AF_INET}, std::uint8_t{AF_INET6}}) {
      for (const bool source : {true, false}) {
        Expressions barrier;
        barrier.is_behind_barrier(family, source);
        barrier.drop();
        requests.push_back({NFT_MSG_NEWRULE, append, rule(hook, barrier)});
      }
    }
  }
  const auto error = commit(requests);
  if (!error) return tl::unexpected(error.error());
  if (*error == EEXIST || *error == EBUSY) {
    return failure(ErrorKind::Unsupported, "nf_tables: a table inet sami is here already, of another process", *error);
  }
  if (*error != 0) {
    return failure(ErrorKind::Unsupported, fmt::format("nf_tables: table inet sami: {}", std::strerror(*error)),
                   *error);
  }
  return {};
}

FilterTable::Request FilterTable::element(std::uint16_t message, const Place& place,
                                          std::chrono::milliseconds timeout) const {
  Request request{message, message == NFT_MSG_NEWSETELEM ? std::uint16_t{NLM_F_CREATE} : std::uint16_t{0}, {}};
  AttributeWriter writer(request.attributes);
  auto key = octets_of(0);
  std::memcpy(key.data(), &place.zone, sizeof place.zone);
  const auto& octets = place.address.octets;
  key.insert(key.end(), octets.begin(), octets.begin() + address_size(place.address.family));
  writer.string(NFTA_SET_ELEM_LIST_TABLE, kTable);
  writer.string(NFTA_SET_ELEM_LIST_SET, set_of(place.address.family));
  writer.nest(NFTA_SET_ELEM_LIST_ELEMENTS, [&] {
    writer.nest(NFTA_LIST_ELEM, [&] {
      writer.nest(NFTA_SET_ELEM_KEY, [&] { writer.bytes(NFTA_DATA_VALUE, key); });
      if (message != NFT_MSG_NEWSETELEM) return;
      const auto count = static_cast<std::uint64_t>(timeout.count());
      std::vector<std::uint8_t> value;
      for (int shift = 56; shift >= 0; shift -= 8) value.push_back(static_cast<std::uint8_t>(count >> shift));
      writer.bytes(NFTA_SET_ELEM_TIMEOUT, value);
    });
  });
  return request;
}

Result<void> FilterTable::raise(const std::vector<Place>& places, std::chrono::milliseconds timeout) {
  for (const auto& place : places) {
    // One that is up is replaced in one transaction: there is no moment without it. A transaction that fails is slow.
    int error = ENOENT;
    if (up_.contains(place)) {
      const auto replaced =
          commit({element(NFT_MSG_DELSETELEM, place, timeout), element(NFT_MSG_NEWSETELEM, place, timeout)});
      if (!replaced) return tl::unexpected(replaced.error());
      error = *replaced;
    }
    if (error == ENOENT) {
      const auto added = commit({element(NFT_MSG_NEWSETELEM, place, timeout)});
      if (!added) return tl::unexpected(added.error());
      error = *added;
    }
    if (error != 0) {
      return failure(ErrorKind::Failed,
                     fmt::format("barrier of {}: {}", to_string(place.address), std::strerror(error)), error);
    }
    up_.insert(place);
  }
  return {};
}

Result<void> FilterTable::lower(const std::vector<Place>& places) {
  for (const auto& place : places) {
    if (!up_.contains(place)) continue;
    const auto deleted = commit({element(NFT_MSG_DELSETELEM, place, {})});
    if (!deleted) return tl::unexpected(deleted.error());
    if (*deleted != 0 && *deleted != ENOENT) {
      return failure(ErrorKind::Failed,
                     fmt::format("barrier of {}: {}", to_string(place.address), std::strerror(*deleted)), *deleted);
    }
    up_.erase(place);
  }
  return {};
}

}  // namespace sami::windows
