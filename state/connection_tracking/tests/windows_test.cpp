// TCP windows: told by the source, written by the destination, and when they are not exact.
#include <linux/netfilter/nf_conntrack_tcp.h>

#include "kernel/windows/memory_windows.h"
#include "kernel/windows/tests/examples.h"
#include "state/connection_tracking/connection_tracking.pb.h"
#include "state/connection_tracking/tests/fixture.h"

namespace sami::state::connection_tracking::test {
namespace {

using testing::IsEmpty;
using windows::TcpWindow;
using windows::test::idle;

constexpr std::uint8_t kLiberal = IP_CT_TCP_FLAG_BE_LIBERAL;

struct ExactHost {
  explicit ExactHost(std::uint16_t zone) : at(zone) {
    conntrack = netlink::make_memory_conntrack();
    windows = windows::make_memory_windows(*conntrack);
    WindowAccess access{windows.get(), windows.get(), windows.get(), ""};
    driver = make_connection_tracking_driver(*conntrack, config_with_zone(zone), clock, access);
  }
  ConntrackEntry here(ConntrackEntry entry) const {
    entry.zone = at;
    return entry;
  }
  void has(const ConntrackEntry& entry, const TcpWindow& window) {
    conntrack->put(here(entry));
    windows->put(netlink::key_of(here(entry)), window);
  }
  std::optional<TcpWindow> window(const ConntrackEntry& entry) {
    return windows->read({netlink::key_of(here(entry))}).value().at(0);
  }
  std::optional<ConntrackEntry> get(const ConntrackEntry& entry) {
    return conntrack->table().get({netlink::key_of(here(entry))})->at(0);
  }
  bool liberal(const ConntrackEntry& entry) {
    const auto found = get(entry);
    return found && found->tcp && ((found->tcp->flags_original & found->tcp->flags_reply) & kLiberal) != 0;
  }

  std::uint16_t at;
  ManualClock clock;
  std::unique_ptr<netlink::MemoryConntrack> conntrack;
  std::unique_ptr<windows::MemoryWindows> windows;
  std::unique_ptr<Driver> driver;
};

TcpWindow later(TcpWindow window) {
  window.original.end += 10'000'000;
  window.original.maximum_end += 10'000'000;
  window.reply.maximum_acknowledgement += 10'000'000;
  return window;
}

class Windows : public testing::Test {
 protected:
  std::vector<Record> snapshot() { return source.driver->snapshot(scope).value(); }
  std::vector<Key> changes() { return source.driver->changes(scope).value().keys; }
  Record read(Driver& driver) { return driver.read(scope, {key(flow)}).value().at(0); }
  InstallResult install(const Record& record, bool ours = false) {
    const auto results = destination.driver->install(scope, {{record, ours}});
    EXPECT_TRUE(results) << results.error().message;
    return results ? results->at(0) : InstallResult{};
  }
  // What the protocol does: the read-back must show what install said it would.
  void expect_read_back(const InstallResult& result) {
    EXPECT_EQ(read(*destination.driver).digest, result.expected != 0 ? result.expected : result.digest);
  }

  Scope scope = scope_of_vm1();
  ExactHost source{0}, destination{4};
  const ConntrackEntry flow = tcp("10.0.0.1", 40000, "198.51.100.7", 443);
  const ConntrackEntry other = tcp("10.0.0.1", 40001, "198.51.100.7", 443);
};

TEST_F(Windows, RecordCarriesThem) {
  const Connection connection{"blue", flow, idle()};
  const auto decoded = decode_body(encode_body(connection));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(decoded->window, idle());
  EXPECT_EQ(digest_of(*decoded), digest_of(connection));
  EXPECT_NE(digest_of(connection), digest_of({"blue", flow}));
  EXPECT_NE(digest_of(connection), digest_of({"blue", flow, later(idle())}));

  v1::Connection message;
  message.ParseFromString(encode_body(connection));
  message.mutable_tcp()->clear_window_reply();
  EXPECT_FALSE(decode_body(message.SerializeAsString())) << "one end only, in ESTABLISHED";
  message.ParseFromString(encode_body(connection));
  message.mutable_tcp()->mutable_window_original()->set_maximum_window(0);
  EXPECT_FALSE(decode_body(message.SerializeAsString()));
}

TEST_F(Windows, SourceTellsThemAndWhatHadAPacketHasChanged) {
  source.has(flow, idle());
  source.has(other, idle());
  EXPECT_FALSE(source.windows->watches());
  ASSERT_TRUE(source.driver->follow(scope));
  const auto before = snapshot();
  ASSERT_EQ(before.size(), 2U);
  EXPECT_EQ(decode_body(before[0].body)->window, idle());
  EXPECT_THAT(changes(), IsEmpty());
  source.windows->put(netlink::key_of(flow), later(idle()));
  EXPECT_THAT(changes(), ElementsAre(key(flow)));
  EXPECT_EQ(decode_body(read(*source.driver).body)->window, later(idle()));
  EXPECT_THAT(changes(), IsEmpty());
  source.windows->overrun_tracker();
  EXPECT_THAT(changes(), UnorderedElementsAre(key(flow), key(other))) << "any may have had a packet";
  ASSERT_TRUE(source.driver->unfollow(scope));
  EXPECT_FALSE(source.windows->watches());
}

TEST_F(Windows, LiberalOrHalfKnownOnesAreNotTold) {
  ConntrackEntry liberal = flow;
  liberal.tcp->flags_original |= kLiberal;
  source.has(liberal, idle());
  EXPECT_FALSE(decode_body(snapshot().at(0).body)->window);
  TcpWindow half = idle();
  half.reply.maximum_window = 0;
  source.has(flow, half);
  EXPECT_FALSE(decode_body(snapshot().at(0).body)->window);
}

TEST_F(Windows, BarrierIsUpAtTheSubjectsEnds) {
  const windows::Place vm1{0, *parse_address("10.0.0.1")};
  EXPECT_TRUE(source.driver->profile().needs_barrier);
  ASSERT_TRUE(source.driver->follow(scope));
  ASSERT_TRUE(source.driver->raise_barrier(scope, 1000));
  EXPECT_THAT(source.windows->places(), ElementsAre(vm1));
  Scope second = scope;
  second.transfer = 1;
  ASSERT_TRUE(source.driver->follow(second));
  ASSERT_TRUE(source.driver->raise_barrier(second, 1000));
  ASSERT_TRUE(source.driver->lower_barrier(scope));
  EXPECT_THAT(source.windows->places(), ElementsAre(vm1)) << "the other transfer's is up";
  ASSERT_TRUE(source.driver->lower_barrier(second));
  ASSERT_TRUE(source.driver->lower_barrier(second));
  EXPECT_THAT(source.windows->places(), IsEmpty());
}

TEST_F(Windows, PacketsBehindTheBarrierAlterNothing) {
  source.has(flow, idle());
  ASSERT_TRUE(source.driver->follow(scope));
  source.windows->put(netlink::key_of(flow), later(idle()));
  ASSERT_TRUE(source.driver->raise_barrier(scope, 1000));
  EXPECT_THAT(changes(), ElementsAre(key(flow))) << "came before";
  source.windows->put(netlink::key_of(flow), later(idle()));
  EXPECT_THAT(changes(), IsEmpty());
  source.has(other, idle());
  EXPECT_THAT(changes(), ElementsAre(key(other))) << "an event is one";
  ASSERT_TRUE(source.driver->lower_barrier(scope));
  source.windows->put(netlink::key_of(flow), later(idle()));
  EXPECT_THAT(changes(), ElementsAre(key(flow)));
}

TEST_F(Windows, BarrierStopsLearnedAddressesToo) {
  scope.subject.mutable_interfaces(0)->clear_addresses();
  *scope.subject.mutable_interfaces(0)->add_learned_within() = prefix("10.0.0.0", 24);
  source.has(flow, idle());
  ASSERT_TRUE(source.driver->follow(scope));
  ASSERT_EQ(snapshot().size(), 1U);
  ASSERT_TRUE(source.driver->raise_barrier(scope, 1000));
  EXPECT_THAT(source.windows->places(), ElementsAre(windows::Place{0, *parse_address("10.0.0.1")}));
}

TEST_F(Windows, WithoutABarrierNoWindowIsTold) {
  source.has(flow, idle());
  ASSERT_TRUE(source.driver->follow(scope));
  ASSERT_TRUE(decode_body(snapshot().at(0).body)->window);
  source.windows->fail_barrier(Error{ErrorKind::Failed, "no nf_tables"});
  EXPECT_TRUE(source.driver->raise_barrier(scope, 1000)) << "liberal is better than a failed migration";
  EXPECT_THAT(changes(), ElementsAre(key(flow))) << "what was told before is to be taken back";
  EXPECT_FALSE(decode_body(read(*source.driver).body)->window);
}

TEST_F(Windows, DestinationWritesThem) {
  for (const std::uint8_t state : {TCP_CONNTRACK_SYN_RECV, TCP_CONNTRACK_ESTABLISHED, TCP_CONNTRACK_LAST_ACK}) {
    ConntrackEntry entry = flow;
    entry.tcp->state = state;
    if (state == TCP_CONNTRACK_SYN_RECV) entry.status &= ~static_cast<std::uint32_t>(IPS_ASSURED);
    source.has(entry, idle());
    const auto result = install(read(*source.driver));
    EXPECT_EQ(result.outcome, InstallOutcome::Installed) << result.detail;
    EXPECT_FALSE(result.reduced) << result.detail;
    expect_read_back(result);
    EXPECT_TRUE(windows::stands_for(destination.window(entry).value(), idle()));
    EXPECT_EQ(destination.get(entry)->tcp->state, state);
    EXPECT_EQ(destination.get(entry)->status, entry.status);
    EXPECT_FALSE(destination.liberal(entry));
    destination.conntrack->erase(netlink::key_of(destination.here(entry)));
  }
}

TEST_F(Windows, LaterOnesReplaceThoseOfAnEarlierRound) {
  source.has(flow, idle());
  const auto early = read(*source.driver);
  ASSERT_EQ(install(early).outcome, InstallOutcome::Installed);
  const auto id = destination.get(flow)->id;
  expect_read_back(install(early, true));
  EXPECT_EQ(destination.get(flow)->id, id) << "the same again alters nothing";

  source.has(flow, later(idle()));
  const auto result = install(read(*source.driver), true);
  EXPECT_EQ(result.outcome, InstallOutcome::Updated);
  EXPECT_FALSE(result.reduced) << result.detail;
  expect_read_back(result);
  EXPECT_TRUE(windows::stands_for(destination.window(flow).value(), later(idle())));
}

TEST_F(Windows, AFewPacketsLaterTheEntryStays) {
  source.has(flow, idle());
  ASSERT_EQ(install(read(*source.driver)).outcome, InstallOutcome::Installed);
  const auto id = destination.get(flow)->id;
  TcpWindow next = idle();
  next.original.end += 500;
  source.has(flow, next);
  const auto result = install(read(*source.driver), true);
  EXPECT_EQ(result.outcome, InstallOutcome::Updated);
  EXPECT_FALSE(result.reduced) << result.detail;
  expect_read_back(result);
  EXPECT_TRUE(windows::stands_for(destination.window(flow).value(), next));
  EXPECT_EQ(destination.get(flow)->id, id);

  ConntrackEntry closing = flow;
  closing.tcp->state = TCP_CONNTRACK_FIN_WAIT;
  ++next.original.end;
  source.has(closing, next);
  expect_read_back(install(read(*source.driver), true));
  EXPECT_EQ(destination.get(flow)->id, id);
  EXPECT_EQ(destination.get(flow)->tcp->state, TCP_CONNTRACK_FIN_WAIT);
  EXPECT_TRUE(windows::stands_for(destination.window(flow).value(), next));
}

TEST_F(Windows, FirstLiberalThenExact) {
  const auto early = install(record(flow));
  EXPECT_TRUE(early.reduced);
  EXPECT_THAT(early.detail, HasSubstr("the source did not tell"));
  EXPECT_TRUE(destination.liberal(flow));
  expect_read_back(early);
  source.has(flow, idle());
  const auto result = install(read(*source.driver), true);
  EXPECT_FALSE(result.reduced) << result.detail;
  EXPECT_FALSE(destination.liberal(flow));
  expect_read_back(result);
}

TEST_F(Windows, FirstExactThenTakenBack) {
  source.has(flow, idle());
  ASSERT_FALSE(install(read(*source.driver)).reduced);
  const auto result = install(record(flow), true);
  EXPECT_TRUE(result.reduced);
  EXPECT_TRUE(destination.liberal(flow));
  expect_read_back(result);
}

TEST_F(Windows, WhatCannotBeWrittenIsLiberalAndSaysSo) {
  source.has(flow, idle());
  destination.windows->fail_writes(true);
  const auto result = install(read(*source.driver));
  EXPECT_EQ(result.outcome, InstallOutcome::Installed);
  EXPECT_TRUE(result.reduced);
  EXPECT_THAT(result.detail, HasSubstr("BE_LIBERAL"));
  EXPECT_TRUE(destination.liberal(flow));
  expect_read_back(result);
}

TEST_F(Windows, AHostWithoutThemIsLiberalAndSaysWhy) {
  source.has(flow, idle());
  destination.windows->make_unavailable(Error{ErrorKind::Unsupported, "no BTF"});
  WindowAccess access{destination.windows.get(), destination.windows.get(), destination.windows.get(), ""};
  destination.driver =
      make_connection_tracking_driver(*destination.conntrack, config_with_zone(4), destination.clock, access);
  EXPECT_FALSE(destination.driver->profile().needs_barrier);
  EXPECT_THAT(destination.driver->profile().not_carried, testing::Contains(HasSubstr("no BTF")));
  const auto result = install(read(*source.driver));
  EXPECT_TRUE(result.reduced);
  EXPECT_THAT(result.detail, HasSubstr("no BTF"));
  EXPECT_TRUE(destination.liberal(flow));
  expect_read_back(result);
}

// The source did not stand still: what was read is not what the subject took along.
TEST_F(Windows, WhatHasMovedAlreadyIsLiberal) {
  source.has(flow, idle());
  source.has(other, idle());
  ASSERT_FALSE(install(read(*source.driver)).reduced);
  scope.conflict_rule = common::CONFLICT_RULE_MOVED;
  const auto late = destination.driver->install(scope, {{source.driver->read(scope, {key(other)}).value().at(0)}});
  ASSERT_TRUE(late);
  EXPECT_TRUE(late->at(0).reduced);
  EXPECT_TRUE(destination.liberal(other));
  EXPECT_FALSE(destination.liberal(flow));
  ASSERT_TRUE(destination.driver->activate(scope, {key(flow), key(other)}));
  EXPECT_TRUE(destination.liberal(flow)) << "what an earlier round brought is loosened";
}

TEST_F(Windows, ARestartedDriverLoosensWhatItMayHaveInstalled) {
  source.has(flow, idle());
  ASSERT_FALSE(install(read(*source.driver)).reduced);
  WindowAccess access{destination.windows.get(), destination.windows.get(), destination.windows.get(), ""};
  destination.driver =
      make_connection_tracking_driver(*destination.conntrack, config_with_zone(4), destination.clock, access);
  scope.conflict_rule = common::CONFLICT_RULE_MOVED;
  ASSERT_TRUE(destination.driver->activate(scope, {key(flow)}));
  EXPECT_TRUE(destination.liberal(flow));
}

TEST_F(Windows, ActivationOfAPlannedMoveKeepsThem) {
  source.has(flow, idle());
  ASSERT_FALSE(install(read(*source.driver)).reduced);
  ASSERT_TRUE(destination.driver->activate(scope, {key(flow)}));
  EXPECT_FALSE(destination.liberal(flow));
}

}  // namespace
}  // namespace sami::state::connection_tracking::test
