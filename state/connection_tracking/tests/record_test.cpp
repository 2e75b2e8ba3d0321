#include <linux/netfilter/nf_conntrack_tcp.h>

#include "state/connection_tracking/connection_tracking.pb.h"
#include "state/connection_tracking/render.h"
#include "state/connection_tracking/tests/fixture.h"

namespace sami::state::connection_tracking::test {
namespace {

ConntrackEntry translated() {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "198.51.100.7", 443, 3);
  entry.reply = tuple(IPPROTO_TCP, "198.51.100.7", 443, "192.0.2.1", 20001);
  entry.mark = 5;
  return entry;
}

TEST(ConnectionRecord, SurvivesTheWire) {
  const ConntrackEntry entry = translated();
  const auto decoded = decode_body(encode_body({"blue", entry}));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(decoded->vn_name, "blue");
  EXPECT_EQ(decoded->entry.original, entry.original);
  EXPECT_EQ(decoded->entry.reply, entry.reply);
  EXPECT_EQ(decoded->entry.tcp, entry.tcp);
  EXPECT_EQ(decoded->entry.mark, 5U);
  EXPECT_EQ(decoded->entry.timeout, 1000U);
  const auto parts = decode_key(encode_key({"blue", entry.original}));
  ASSERT_TRUE(parts);
  EXPECT_EQ(*parts, (KeyParts{"blue", entry.original}));
}

TEST(ConnectionRecord, NamesWhatIsWrong) {
  const auto broken = [](auto change) {
    v1::Connection message;
    message.ParseFromString(encode_body({"blue", translated()}));
    change(message);
    const auto decoded = decode_body(message.SerializeAsString());
    return decoded ? std::string("accepted") : decoded.error().message;
  };
  EXPECT_THAT(broken([](auto& m) { m.clear_vn_name(); }), HasSubstr("vn_name"));
  EXPECT_THAT(broken([](auto& m) { m.mutable_original()->set_source("abc"); }), HasSubstr("original: addresses of 3"));
  EXPECT_THAT(broken([](auto& m) { m.mutable_original()->set_source_port(70000); }), HasSubstr("70000"));
  EXPECT_THAT(broken([](auto& m) { m.mutable_reply()->set_protocol(17); }), HasSubstr("reply"));
  EXPECT_THAT(broken([](auto& m) { m.mutable_tcp()->set_state(200); }), HasSubstr("tcp.state"));
  EXPECT_THAT(broken([](auto& m) { m.mutable_tcp()->set_scale_reply(15); }), HasSubstr("scales"));
  EXPECT_THAT(broken([](auto& m) { m.clear_tcp(); }), HasSubstr("tcp"));
  EXPECT_THAT(broken([](auto& m) { m.set_labels("abc"); }), HasSubstr("labels"));
  EXPECT_THAT(broken([](auto& m) { m.set_helper("a helper with too many letters"); }), HasSubstr("helper"));
  EXPECT_FALSE(decode_body("\xff\xff\xff"));
  EXPECT_FALSE(decode_body(std::string(10'000, 'x')));
  for (const std::string& key : {std::string(), std::string("\x04"),
                                 std::string("\x01"
                                             "b\x05\x06"),
                                 std::string(200, 'k')}) {
    EXPECT_FALSE(decode_key(key));
  }
}

TEST(ConnectionRecord, DigestCoversTheStateAndNotTheTimers) {
  const ConntrackEntry entry = translated();
  const Digest digest = digest_of({"blue", entry});
  const auto changed = [&](auto change) {
    ConntrackEntry other = entry;
    change(other);
    return digest_of({"blue", other});
  };
  EXPECT_EQ(digest, changed([](auto& e) { e.timeout = 7; }));
  EXPECT_EQ(digest, changed([](auto& e) { e.zone = 9; }));
  EXPECT_EQ(digest, changed([](auto& e) { e.id = 9; }));
  EXPECT_EQ(digest, changed([](auto& e) { e.packets_original = 9; }));
  EXPECT_EQ(digest, changed([](auto& e) { e.tcp->flags_reply |= 0xf8; })) << "BE_LIBERAL, and what is not carried";
  EXPECT_EQ(digest, changed([](auto& e) { e.status |= IPS_NAT_MASK | IPS_NAT_DONE_MASK; }));
  EXPECT_NE(digest, changed([](auto& e) { e.status &= ~static_cast<std::uint32_t>(IPS_ASSURED); }));
  EXPECT_NE(digest, changed([](auto& e) { e.tcp->state = TCP_CONNTRACK_FIN_WAIT; }));
  EXPECT_NE(digest, changed([](auto& e) { e.tcp->scale_reply = 1; }));
  EXPECT_NE(digest, changed([](auto& e) { e.reply.destination_port = 1; }));
  EXPECT_NE(digest, changed([](auto& e) { e.mark = 0; }));
  EXPECT_NE(digest, digest_of({"red", entry}));
  EXPECT_EQ(digest, 0xd8ccf3ade55c0c52ULL) << "stable between versions";
}

TEST(ConnectionRecord, ReadsLikeConntrack) {
  const std::string body = encode_body({"blue", translated()});
  EXPECT_EQ(render_text(body).value_or("unreadable"),
            "blue tcp 6 1000 ESTABLISHED src=10.0.0.1 dst=198.51.100.7 sport=40000 dport=443 src=198.51.100.7 "
            "dst=192.0.2.1 sport=443 dport=20001 [ASSURED] mark=5");
  EXPECT_THAT(render_json(body).value_or("unreadable"), HasSubstr(R"("state":"ESTABLISHED")"));
  EXPECT_THAT(render_json(body).value_or("unreadable"),
              HasSubstr(R"("destination":"192.0.2.1","destination_port":20001)"));
  EXPECT_EQ(render_text("garbage").error().kind, ErrorKind::Corrupt);
  EXPECT_EQ(render_json("garbage").error().kind, ErrorKind::Corrupt);
}

}  // namespace
}  // namespace sami::state::connection_tracking::test
