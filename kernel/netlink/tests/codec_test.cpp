// The codec alone: what is sent, and that garbage is refused.
#include <gtest/gtest.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>

#include <cerrno>
#include <cstring>

#include "kernel/netlink/message.h"
#include "kernel/netlink/tests/entries.h"

namespace sami::netlink::test {
namespace {

AttributeTable parse(Bytes bytes) {
  auto table = AttributeTable::parse(bytes, "test");
  EXPECT_TRUE(table) << table.error().message;
  return table.value_or(AttributeTable());
}

TEST(ConntrackCodec, DecodesWhatItEncodes) {
  ConntrackEntry entry = tcp("fd00::1", 40000, "fd09::1", 80, 300);
  entry.mark = 7;
  entry.helper = "ftp";
  entry.labels = {1, 2, 3, 4};
  const auto decoded = decode_entry(AF_INET6, encode_entry(entry, ConntrackOperation::Create));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(decoded->original, entry.original);
  EXPECT_EQ(decoded->reply, entry.reply);
  EXPECT_EQ(decoded->zone, 300);
  EXPECT_EQ(decoded->status, kEstablished);
  EXPECT_EQ(decoded->timeout, 1000U);
  EXPECT_EQ(decoded->mark, 7U);
  EXPECT_EQ(decoded->tcp, entry.tcp);
  EXPECT_EQ(decoded->helper, "ftp");
  EXPECT_EQ(decoded->labels, entry.labels);
}

TEST(ConntrackCodec, SendsTheMirroredReplyAndTheTranslation) {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  entry.reply = tuple(IPPROTO_TCP, "10.9.0.1", 80, "192.0.2.1", 20001);
  const auto payload = encode_entry(entry, ConntrackOperation::Create);
  const auto table = parse(payload);
  EXPECT_EQ(decode_entry(AF_INET, payload)->reply, mirror(entry.original));
  EXPECT_FALSE(table.has(CTA_NAT_DST));
  ASSERT_TRUE(table.has(CTA_NAT_SRC));
  const auto nat = parse(*table.get(CTA_NAT_SRC));
  EXPECT_EQ(nat.be32(CTA_NAT_V4_MINIP), 0xc0000201U);
  EXPECT_EQ(nat.be32(CTA_NAT_V4_MAXIP), 0xc0000201U);
  const auto ports = parse(*nat.get(CTA_NAT_PROTO));
  EXPECT_EQ(ports.be16(CTA_PROTONAT_PORT_MIN), 20001);
  EXPECT_EQ(ports.be16(CTA_PROTONAT_PORT_MAX), 20001);
}

TEST(ConntrackCodec, NeverSendsWhatHurts) {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  entry.status = 0xffffffff;
  entry.tcp->flags_original = 0xff;
  const auto create = encode_entry(entry, ConntrackOperation::Create);
  const auto table = parse(create);
  EXPECT_EQ(table.be32(CTA_STATUS), kEstablished);
  const auto state = parse(*parse(*table.get(CTA_PROTOINFO)).get(CTA_PROTOINFO_TCP));
  EXPECT_EQ(state.be16(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL), 0x0f0f) << "flags and mask";
  entry.reply.destination = *parse_address("192.0.2.1");
  entry.helper = "ftp";
  const auto update = encode_entry(entry, ConntrackOperation::Update);
  EXPECT_FALSE(parse(update).has(CTA_NAT_SRC));
  EXPECT_FALSE(parse(update).has(CTA_HELP));
  const auto timeout = encode_entry(entry, ConntrackOperation::SetTimeout);
  const auto set = parse(timeout);
  EXPECT_FALSE(set.has(CTA_STATUS) || set.has(CTA_PROTOINFO) || set.has(CTA_MARK));
}

TEST(ConntrackCodec, RefusesGarbage) {
  const auto payload = encode_entry(tcp("10.0.0.1", 1, "10.9.0.1", 2), ConntrackOperation::Create);
  for (std::size_t length = 0; length < payload.size(); ++length) {
    (void)decode_entry(AF_INET, Bytes(payload.data(), length));  // must not read beyond
  }
  EXPECT_FALSE(decode_entry(AF_INET, Bytes(payload.data(), payload.size() - 3)));
  EXPECT_FALSE(decode_entry(AF_INET6, payload));
  EXPECT_FALSE(decode_entry(AF_UNSPEC, payload));
  auto broken = payload;
  broken[0] = 3;  // shorter than its own header
  EXPECT_EQ(decode_entry(AF_INET, broken).error().kind, ErrorKind::Corrupt);
  broken[0] = 0xff;
  broken[1] = 0xff;
  EXPECT_EQ(decode_entry(AF_INET, broken).error().kind, ErrorKind::Corrupt);
}

TEST(NetlinkMessages, SplitsADatagram) {
  std::vector<std::uint8_t> datagram;
  append_request(datagram, 0x100, NLM_F_ACK, 5, AF_INET, {});
  append_request(datagram, 0x101, 0, 6, AF_INET6, std::vector<std::uint8_t>{8, 0, 1, 0, 1, 2, 3, 4});
  std::vector<std::uint32_t> sequences;
  ASSERT_TRUE(split_messages(datagram, [&](const Message& message) {
    sequences.push_back(message.sequence);
    EXPECT_TRUE(parse_netfilter(message));
  }));
  EXPECT_EQ(sequences, (std::vector<std::uint32_t>{5, 6}));
  datagram.resize(datagram.size() - 1);
  EXPECT_EQ(split_messages(datagram, [](const Message&) {}).error().kind, ErrorKind::Corrupt);
}

TEST(NetlinkMessages, ReadsTheKernelsWords) {
  std::vector<std::uint8_t> payload(sizeof(int) + sizeof(nlmsghdr));
  const int error = -EBUSY;
  std::memcpy(payload.data(), &error, sizeof error);
  AttributeWriter(payload).string(NLMSGERR_ATTR_MSG, "no");
  Message message;
  message.type = NLMSG_ERROR;
  message.flags = NLM_F_ACK_TLVS | NLM_F_CAPPED;
  message.payload = payload;
  const auto parsed = parse_acknowledgement(message);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->error, EBUSY);
  EXPECT_EQ(parsed->text, "no");
}

}  // namespace
}  // namespace sami::netlink::test
