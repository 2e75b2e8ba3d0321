// What every ConntrackTable does, shown on both twins.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "kernel/netlink/memory_conntrack.h"
#include "kernel/netlink/tests/entries.h"
#include "kernel/netlink/tests/network_namespace.h"

namespace sami::netlink::test {
namespace {

using testing::ElementsAre;

enum class Twin { Kernel, Memory };

class ConntrackConformance : public testing::TestWithParam<Twin> {
 protected:
  void SetUp() override {
    if (GetParam() == Twin::Memory) {
      MemoryConntrackOptions options;
      options.event_queue = 500;
      conntrack_ = make_memory_conntrack(options);
      return;
    }
    namespace_.emplace();
    if (!namespace_->usable()) GTEST_SKIP() << namespace_->reason();
    KernelConntrackOptions options;
    options.event_buffer_bytes = 64 * 1024;
    auto opened = open_kernel_conntrack(options);
    ASSERT_TRUE(opened) << opened.error().message;
    conntrack_ = std::move(*opened);
  }

  int apply(ConntrackOperation operation, const ConntrackEntry& entry) {
    const auto results = conntrack_->table().apply({{operation, entry}});
    EXPECT_TRUE(results) << results.error().message;
    return results ? results->at(0) : -1;
  }
  int create(const ConntrackEntry& entry) { return apply(ConntrackOperation::Create, entry); }
  int update(const ConntrackEntry& entry) { return apply(ConntrackOperation::Update, entry); }

  std::optional<ConntrackEntry> get(const ConntrackEntry& entry) {
    const auto found = conntrack_->table().get({key_of(entry)});
    EXPECT_TRUE(found) << found.error().message;
    return found ? found->at(0) : std::nullopt;
  }

  std::vector<ConntrackKey> dump(const ConntrackFilter& filter) {
    std::vector<ConntrackKey> keys;
    const auto dumped =
        conntrack_->table().dump(filter, [&](const ConntrackEntry& entry) { keys.push_back(key_of(entry)); });
    EXPECT_TRUE(dumped) << dumped.error().message;
    std::sort(keys.begin(), keys.end());
    return keys;
  }

  std::vector<ConntrackEvent> drain(ConntrackEvents& events) {
    const auto drained = events.drain();
    EXPECT_TRUE(drained) << drained.error().message;
    return drained.value_or(std::vector<ConntrackEvent>{});
  }

  std::optional<NetworkNamespace> namespace_;
  std::unique_ptr<Conntrack> conntrack_;
};

INSTANTIATE_TEST_SUITE_P(Twins, ConntrackConformance, testing::Values(Twin::Memory, Twin::Kernel),
                         [](const auto& twin) { return twin.param == Twin::Kernel ? "kernel" : "memory"; });

TEST_P(ConntrackConformance, ShowsWhatWasCreated) {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  entry.mark = 42;
  EXPECT_EQ(create(entry), 0);
  const auto found = get(entry);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->reply, entry.reply);
  EXPECT_EQ(found->status & kImportableStatus, kEstablished);
  EXPECT_EQ(found->tcp, entry.tcp);
  EXPECT_EQ(found->mark, 42U);
  EXPECT_NE(found->id, 0U);
  EXPECT_LE(found->timeout, 1000U);
  EXPECT_GE(found->timeout, 990U);
  EXPECT_EQ(conntrack_->table().count().value_or(0), 1U);
}

TEST_P(ConntrackConformance, HoldsIpv6AndIcmp) {
  const ConntrackEntry six = tcp("fd00::1", 40000, "fd09::1", 80);
  ConntrackEntry echo = udp("10.0.0.1", 77, "10.9.0.1", 8 << 8);
  echo.original.protocol = IPPROTO_ICMP;
  echo.reply = mirror(echo.original);
  EXPECT_EQ(echo.reply.destination_port, 0);
  EXPECT_EQ(create(six), 0);
  EXPECT_EQ(create(echo), 0);
  EXPECT_TRUE(get(six));
  ASSERT_TRUE(get(echo));
  EXPECT_EQ(get(echo)->reply, echo.reply);
}

TEST_P(ConntrackConformance, RefusesWhatTheKernelRefuses) {
  ConntrackEntry entry = udp("10.0.0.1", 1, "10.9.0.1", 2);
  entry.timeout = 0;
  EXPECT_EQ(create(entry), EINVAL);
  entry.timeout = 100;
  entry.status = IPS_SEEN_REPLY;
  EXPECT_EQ(create(entry), EBUSY);
  entry.status = kConfirmed;
  entry.helper = "no-such-helper";
  EXPECT_EQ(create(entry), EOPNOTSUPP);
  EXPECT_FALSE(get(entry));
}

TEST_P(ConntrackConformance, KeyTakenInEitherDirection) {
  const ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  const ConntrackEntry reverse = tcp("10.9.0.1", 80, "10.0.0.1", 40000);
  EXPECT_EQ(create(entry), 0);
  EXPECT_EQ(create(entry), EEXIST);
  EXPECT_EQ(create(reverse), EEXIST);
  EXPECT_FALSE(get(reverse)) << "only the original direction counts";
  ConntrackEntry other_zone = entry;
  other_zone.zone = 7;
  EXPECT_EQ(create(other_zone), 0);
}

TEST_P(ConntrackConformance, KeepsTheTranslation) {
  ConntrackEntry source = udp("10.0.0.1", 4000, "10.9.0.1", 53);
  source.reply = tuple(IPPROTO_UDP, "10.9.0.1", 53, "192.0.2.1", 20001);
  ConntrackEntry destination = udp("10.9.0.1", 5000, "192.0.2.2", 80);
  destination.reply = tuple(IPPROTO_UDP, "10.0.0.1", 8080, "10.9.0.1", 5000);
  ConntrackEntry both = udp("10.0.0.1", 4001, "192.0.2.2", 80);
  both.reply = tuple(IPPROTO_UDP, "10.0.0.2", 8080, "192.0.2.1", 20002);
  ConntrackEntry echo = udp("10.0.0.1", 77, "10.9.0.1", 8 << 8);
  echo.original.protocol = IPPROTO_ICMP;
  echo.reply = tuple(IPPROTO_ICMP, "10.9.0.1", 1234, "192.0.2.1", 0);
  for (const auto& [entry, bits] : {std::pair{source, IPS_SRC_NAT}, std::pair{destination, IPS_DST_NAT},
                                    std::pair{both, IPS_NAT_MASK}, std::pair{echo, IPS_SRC_NAT}}) {
    EXPECT_EQ(create(entry), 0);
    const auto found = get(entry);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->reply, entry.reply);
    EXPECT_EQ(found->status & IPS_NAT_MASK, static_cast<std::uint32_t>(bits));
  }
  ConntrackEntry taken = udp("10.0.0.5", 4000, "10.9.0.1", 53);
  taken.reply = source.reply;
  EXPECT_EQ(create(taken), EEXIST) << "the external port is in use";
}

TEST_P(ConntrackConformance, TakesFlagsByMaskAndScalesOnlyTogether) {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  entry.tcp = ConntrackTcp{TCP_CONNTRACK_SYN_SENT, 7, 0, 0x33, 0x00};
  EXPECT_EQ(create(entry), 0);
  EXPECT_EQ(get(entry)->tcp, (ConntrackTcp{TCP_CONNTRACK_SYN_SENT, 0, 0, 0x03, 0x00})) << "no scale without both flags";
  entry.tcp = ConntrackTcp{TCP_CONNTRACK_SYN_SENT, 7, 0, 0x0b, 0x09};
  EXPECT_EQ(update(entry), 0);
  EXPECT_EQ(get(entry)->tcp, entry.tcp);
  entry.tcp = ConntrackTcp{TCP_CONNTRACK_ESTABLISHED, 7, 2, 0x03, 0x03};
  EXPECT_EQ(update(entry), 0);
  EXPECT_EQ(get(entry)->tcp, entry.tcp) << "an update clears flags too";
}

TEST_P(ConntrackConformance, UpdateChangesWhatItMay) {
  ConntrackEntry entry = udp("10.0.0.1", 4000, "10.9.0.1", 53);
  EXPECT_EQ(update(entry), ENOENT);
  EXPECT_EQ(create(entry), 0);
  entry.timeout = 500;
  entry.mark = 5;
  entry.status |= IPS_ASSURED;
  EXPECT_EQ(update(entry), 0);
  EXPECT_EQ(get(entry)->mark, 5U);
  EXPECT_GT(get(entry)->timeout, 400U);
  EXPECT_TRUE(get(entry)->status & IPS_ASSURED);
  entry.status &= ~static_cast<std::uint32_t>(IPS_ASSURED);
  EXPECT_EQ(update(entry), EBUSY) << "ASSURED cannot be cleared";
  entry.status = kConfirmed | IPS_ASSURED;
  EXPECT_EQ(update(entry), EBUSY) << "SEEN_REPLY cannot be cleared";
  entry = udp("10.0.0.1", 4000, "10.9.0.1", 53);
  entry.status |= IPS_ASSURED;
  entry.reply = tuple(IPPROTO_UDP, "10.9.0.1", 53, "192.0.2.1", 20001);
  EXPECT_EQ(update(entry), 0);
  EXPECT_EQ(get(entry)->reply, mirror(entry.original)) << "the translation stays";
}

TEST_P(ConntrackConformance, SetTimeoutChangesNothingElse) {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  entry.mark = 9;
  EXPECT_EQ(apply(ConntrackOperation::SetTimeout, entry), ENOENT);
  EXPECT_EQ(create(entry), 0);
  ConntrackEntry bare = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  bare.timeout = 30;
  bare.tcp->state = TCP_CONNTRACK_CLOSE;
  EXPECT_EQ(apply(ConntrackOperation::SetTimeout, bare), 0);
  EXPECT_LE(get(entry)->timeout, 30U);
  EXPECT_EQ(get(entry)->mark, 9U);
  EXPECT_EQ(get(entry)->tcp, entry.tcp);
}

TEST_P(ConntrackConformance, DeletesExactlyTheNamedEntry) {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "10.9.0.1", 80);
  EXPECT_EQ(create(entry), 0);
  EXPECT_EQ(apply(ConntrackOperation::Delete, entry), EINVAL) << "no id";
  const std::uint32_t id = get(entry)->id;
  entry.id = id + 1;
  EXPECT_EQ(apply(ConntrackOperation::Delete, entry), ENOENT);
  EXPECT_TRUE(get(entry));
  entry.id = id;
  EXPECT_EQ(apply(ConntrackOperation::Delete, entry), 0);
  EXPECT_FALSE(get(entry));
  EXPECT_EQ(apply(ConntrackOperation::Delete, entry), ENOENT);
}

TEST_P(ConntrackConformance, DumpsWhatTheFilterNames) {
  const ConntrackEntry first = udp("10.0.0.1", 1, "10.9.0.1", 53);
  const ConntrackEntry second = udp("10.9.0.1", 2, "10.0.0.1", 53);
  const ConntrackEntry third = udp("10.0.0.1", 1, "10.9.0.9", 53, 7);
  const ConntrackEntry six = udp("fd00::1", 1, "fd09::1", 53);
  for (const auto& entry : {first, second, third, six}) EXPECT_EQ(create(entry), 0);
  ConntrackFilter filter;
  filter.family = AF_INET;
  EXPECT_EQ(dump(filter).size(), 3U) << "of every zone";
  filter.original_source = parse_address("10.0.0.1");
  EXPECT_THAT(dump(filter), ElementsAre(key_of(first), key_of(third)));
  filter.zone = 0;
  EXPECT_THAT(dump(filter), ElementsAre(key_of(first)));
  filter.zone = 7;
  filter.original_destination = parse_address("10.9.0.9");
  EXPECT_THAT(dump(filter), ElementsAre(key_of(third)));
  ConntrackFilter reply;
  reply.family = AF_INET;
  reply.reply_source = parse_address("10.0.0.1");
  EXPECT_THAT(dump(reply), ElementsAre(key_of(second)));
  reply.reply_source = std::nullopt;
  reply.reply_destination = parse_address("10.9.0.1");
  EXPECT_THAT(dump(reply), ElementsAre(key_of(second)));
  ConntrackFilter nobody;
  nobody.family = AF_INET;
  nobody.original_source = parse_address("203.0.113.9");
  EXPECT_THAT(dump(nobody), ElementsAre());
  ConntrackFilter version6;
  version6.family = AF_INET6;
  EXPECT_THAT(dump(version6), ElementsAre(key_of(six)));
}

TEST_P(ConntrackConformance, ManyAtOnceAnswerInOrder) {
  std::vector<ConntrackRequest> requests;
  std::vector<ConntrackKey> keys;
  for (std::uint16_t port = 1; port <= 1500; ++port) {
    requests.push_back({ConntrackOperation::Create, tcp("10.0.0.1", port, "10.9.0.1", 80)});
    keys.push_back(key_of(requests.back().entry));
    if (port % 3 == 0) requests.push_back(requests.back());
  }
  const auto results = conntrack_->table().apply(requests);
  ASSERT_TRUE(results) << results.error().message;
  std::size_t position = 0;
  for (std::uint16_t port = 1; port <= 1500; ++port) {
    EXPECT_EQ(results->at(position++), 0) << port;
    if (port % 3 == 0) {
      EXPECT_EQ(results->at(position++), EEXIST) << port;
    }
  }
  keys.insert(keys.begin() + 700, key_of(tcp("10.0.0.9", 1, "10.9.0.1", 80)));
  const auto found = conntrack_->table().get(keys);
  ASSERT_TRUE(found) << found.error().message;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    ASSERT_EQ(found->at(i).has_value(), i != 700) << i;
    if (i != 700) {
      EXPECT_EQ(key_of(*found->at(i)), keys[i]);
    }
  }
}

TEST_P(ConntrackConformance, EventsNameWhatHappened) {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "192.0.2.2", 80, 5);
  entry.reply = tuple(IPPROTO_TCP, "10.9.0.1", 8080, "10.0.0.1", 40000);
  EXPECT_EQ(create(tcp("10.0.0.1", 1, "10.9.0.1", 80)), 0);
  auto events = conntrack_->subscribe();
  ASSERT_TRUE(events) << events.error().message;
  EXPECT_TRUE(drain(**events).empty());
  EXPECT_EQ(create(entry), 0);
  entry.mark = 3;
  EXPECT_EQ(update(entry), 0);
  entry.id = get(entry)->id;
  EXPECT_EQ(apply(ConntrackOperation::Delete, entry), 0);
  const auto seen = drain(**events);
  ASSERT_GE(seen.size(), 3U);
  EXPECT_EQ(seen.front().kind, EventKind::New);
  EXPECT_EQ(seen[1].kind, EventKind::Update);
  EXPECT_EQ(seen.back().kind, EventKind::Destroy);
  for (const auto& event : seen) {
    EXPECT_EQ(event.key, key_of(entry));
    EXPECT_EQ(event.reply, entry.reply);
  }
}

TEST_P(ConntrackConformance, LostEventsAreReportedOnce) {
  auto events = conntrack_->subscribe();
  ASSERT_TRUE(events) << events.error().message;
  for (std::uint16_t port = 1; port <= 3000; ++port) create(udp("10.0.0.1", port, "10.9.0.1", 53));
  const auto lost = (*events)->drain();
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().kind, ErrorKind::Retry);
  EXPECT_EQ(lost.error().system_error, ENOBUFS);
  EXPECT_EQ(create(udp("10.0.0.2", 1, "10.9.0.1", 53)), 0);
  EXPECT_EQ(drain(**events).size(), 1U) << "the subscription goes on";
}

}  // namespace
}  // namespace sami::netlink::test
