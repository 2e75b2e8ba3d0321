#include "kernel/netlink/message.h"

#include <fmt/format.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include <algorithm>
#include <cstring>

namespace sami::netlink {

namespace {

constexpr std::size_t kHeader = sizeof(nlmsghdr);

constexpr std::size_t aligned(std::size_t length) { return (length + 3) & ~std::size_t{3}; }

// The kernel's words follow the error and, unless capped, the request's header and payload.
std::string extended_text(const Message& message) {
  if (!(message.flags & NLM_F_ACK_TLVS)) return {};
  std::size_t offset = sizeof(int);
  if (message.type == NLMSG_ERROR) {
    nlmsghdr request{};
    if (message.payload.size() < offset + kHeader) return {};
    std::memcpy(&request, message.payload.data() + offset, kHeader);
    offset += message.flags & NLM_F_CAPPED ? kHeader : aligned(std::max<std::size_t>(request.nlmsg_len, kHeader));
  }
  if (offset > message.payload.size()) return {};
  const auto table = AttributeTable::parse(message.payload.subspan(offset), "extended acknowledgement");
  if (!table || !table->has(NLMSGERR_ATTR_MSG)) return {};
  const Bytes text = *table->get(NLMSGERR_ATTR_MSG);
  return {text.begin(), std::find(text.begin(), text.end(), std::uint8_t{0})};
}

}  // namespace

Result<void> split_messages(Bytes datagram, const std::function<void(const Message&)>& sink) {
  std::size_t offset = 0;
  while (offset < datagram.size()) {
    const std::size_t left = datagram.size() - offset;
    nlmsghdr header{};
    if (left >= kHeader) std::memcpy(&header, datagram.data() + offset, kHeader);
    if (left < kHeader || header.nlmsg_len < kHeader || header.nlmsg_len > left) {
      return failure(ErrorKind::Corrupt, fmt::format("netlink message at octet {} has length {}, {} octets are left",
                                                     offset, header.nlmsg_len, left));
    }
    sink({header.nlmsg_type, header.nlmsg_flags, header.nlmsg_seq, header.nlmsg_pid,
          datagram.subspan(offset + kHeader, header.nlmsg_len - kHeader)});
    offset += std::min(aligned(header.nlmsg_len), left);
  }
  return {};
}

Result<Acknowledgement> parse_acknowledgement(const Message& message) {
  int code = 0;
  if (message.payload.size() < sizeof code) {
    if (message.type == NLMSG_DONE) return Acknowledgement{};
    return failure(ErrorKind::Corrupt, "netlink acknowledgement without an error number");
  }
  std::memcpy(&code, message.payload.data(), sizeof code);
  if (code > 0 || code < -4095) {
    if (message.type == NLMSG_DONE) return Acknowledgement{};
    return failure(ErrorKind::Corrupt, fmt::format("netlink acknowledgement with error number {}", code));
  }
  return Acknowledgement{-code, extended_text(message)};
}

Result<NetfilterMessage> parse_netfilter(const Message& message) {
  nfgenmsg header{};
  if (message.payload.size() < sizeof header) {
    return failure(ErrorKind::Corrupt, "nfnetlink message shorter than its header");
  }
  std::memcpy(&header, message.payload.data(), sizeof header);
  return NetfilterMessage{header.nfgen_family, message.payload.subspan(sizeof header)};
}

void append_request(std::vector<std::uint8_t>& datagram, std::uint16_t type, std::uint16_t flags,
                    std::uint32_t sequence, std::uint8_t family, Bytes attributes) {
  const nfgenmsg netfilter{family, NFNETLINK_V0, 0};
  nlmsghdr header{};
  header.nlmsg_len = static_cast<std::uint32_t>(kHeader + sizeof netfilter + attributes.size());
  header.nlmsg_type = type;
  header.nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST);
  header.nlmsg_seq = sequence;
  const auto append = [&datagram](const void* data, std::size_t size) {
    const auto* first = static_cast<const std::uint8_t*>(data);
    datagram.insert(datagram.end(), first, first + size);
  };
  append(&header, kHeader);
  append(&netfilter, sizeof netfilter);
  append(attributes.data(), attributes.size());
  datagram.resize(aligned(datagram.size()));
}

}  // namespace sami::netlink
