// The driver at the destination: what is let in, what stands in the way, what becomes of it.
#include <linux/netfilter/nf_conntrack_tcp.h>

#include "state/connection_tracking/tests/fixture.h"

namespace sami::state::connection_tracking::test {
namespace {

class AtDestination : public ConnectionTracking {
 protected:
  ConntrackEntry here(ConntrackEntry entry) {
    entry.zone = 4;
    return entry;
  }
  const ConntrackEntry out = tcp("10.0.0.1", 40000, "198.51.100.7", 443);
};

ConntrackEntry source_nat(const std::string& external, std::uint16_t port) {
  ConntrackEntry entry = tcp("10.0.0.1", 40000, "198.51.100.7", 443);
  entry.reply = tuple(IPPROTO_TCP, "198.51.100.7", 443, external, port);
  return entry;
}

ConntrackEntry destination_nat(const std::string& external) {
  ConntrackEntry entry = udp("198.51.100.7", 5000, external, 80);
  entry.reply = tuple(IPPROTO_UDP, "10.0.0.1", 8080, "198.51.100.7", 5000);
  return entry;
}

TEST_F(AtDestination, WhatIsInstalledReadsBackTheSame) {
  ConntrackEntry half_open = tcp("10.0.0.1", 40001, "198.51.100.7", 443);
  half_open.status = IPS_CONFIRMED;
  half_open.tcp = ConntrackTcp{TCP_CONNTRACK_SYN_SENT, 7, 0, 0x23, 0};
  ConntrackEntry no_scaling = tcp("10.0.0.1", 40002, "198.51.100.7", 443);
  no_scaling.tcp = ConntrackTcp{TCP_CONNTRACK_ESTABLISHED, 0, 0, 0x22, 0x20};
  for (const auto& entry : {out, half_open, no_scaling, source_nat("192.0.2.1", 20001), destination_nat("192.0.2.1"),
                            udp("10.0.0.1", 1, "198.51.100.7", 53)}) {
    destination.conntrack->erase(netlink::key_of(here(entry)));
    const auto result = install(entry);
    EXPECT_EQ(result.outcome, InstallOutcome::Installed) << result.detail;
    EXPECT_EQ(result.digest, digest_of({"blue", entry}));
    EXPECT_EQ(result.reduced, entry.tcp.has_value());
    const auto read = destination.driver->read(scope, {key(entry)});
    ASSERT_TRUE(read);
    EXPECT_FALSE(read->at(0).gone);
    EXPECT_EQ(read->at(0).digest, result.digest) << to_string(entry.original);
  }
  const auto standing = destination.get(here(half_open));
  ASSERT_TRUE(standing);
  EXPECT_EQ(standing->tcp, (ConntrackTcp{TCP_CONNTRACK_SYN_SENT, 7, 0, 0x0b, 0x09})) << "liberal, the scale kept";
}

TEST_F(AtDestination, NothingForeign) {
  EXPECT_EQ(outcome(tcp("10.0.0.2", 1, "198.51.100.7", 443)), InstallOutcome::Foreign);
  EXPECT_EQ(install({record(out, "red")}).outcome, InstallOutcome::Foreign) << "the address in another VN";
  *scope.peers.add_exclude() = prefix("198.51.100.7", 32);
  EXPECT_EQ(outcome(out), InstallOutcome::Foreign) << "the peer is not selected";
  EXPECT_EQ(destination.count(), 0U);
}

TEST_F(AtDestination, RefusesWhatMakesNoSenseOrCannotBeCarried) {
  EXPECT_EQ(install({Record{key(out), "garbage", false, 0}}).outcome, InstallOutcome::Malformed);
  EXPECT_EQ(install({Record{key(out), record(source_nat("192.0.2.1", 1)).body, false, 0}}).outcome,
            InstallOutcome::Installed);
  EXPECT_EQ(install({Record{"other", record(out).body, false, 0}}).outcome, InstallOutcome::Malformed);
  EXPECT_EQ(install({Record{"other", {}, true, 0}, true}).outcome, InstallOutcome::Malformed);
  EXPECT_EQ(install({record(out, "green")}).outcome, InstallOutcome::Unsupported);
  ConntrackEntry gre = udp("10.0.0.1", 1, "198.51.100.7", 2);
  gre.original.protocol = gre.reply.protocol = IPPROTO_GRE;
  EXPECT_EQ(outcome(gre), InstallOutcome::Unsupported);
  ConntrackEntry adjusted = tcp("10.0.0.1", 2, "198.51.100.7", 443);
  adjusted.status |= IPS_SEQ_ADJUST;
  EXPECT_EQ(outcome(adjusted), InstallOutcome::Unsupported);
  ConntrackEntry helped = tcp("10.0.0.1", 2, "198.51.100.7", 443);
  helped.helper = "unknown";
  EXPECT_EQ(outcome(helped), InstallOutcome::Unsupported);
  EXPECT_EQ(destination.count(), 1U);
}

TEST_F(AtDestination, ExternalAddressesMustBeHere) {
  EXPECT_EQ(outcome(source_nat("203.0.113.5", 20001)), InstallOutcome::MissingExternalAddress);
  EXPECT_EQ(outcome(source_nat("192.0.2.9", 20001)), InstallOutcome::SharedExternalAddress);
  EXPECT_EQ(outcome(destination_nat("203.0.113.5")), InstallOutcome::MissingExternalAddress);
  EXPECT_EQ(outcome(destination_nat("192.0.2.9")), InstallOutcome::SharedExternalAddress);
  EXPECT_EQ(destination.count(), 0U);
  EXPECT_EQ(outcome(source_nat("192.0.2.1", 20001)), InstallOutcome::Installed);
  EXPECT_EQ(outcome(destination_nat("192.0.2.1")), InstallOutcome::Installed);
  ConntrackEntry redirected = tcp("10.0.0.1", 40009, "203.0.113.1", 80);
  redirected.reply = tuple(IPPROTO_TCP, "198.51.100.8", 8080, "10.0.0.1", 40009);
  EXPECT_EQ(outcome(redirected), InstallOutcome::Installed) << "the subject's own packets come by anyway";
}

TEST_F(AtDestination, PlannedAdoptsTheSameAndReportsAnother) {
  destination.has(here(out));
  const auto adopted = install(out);
  EXPECT_EQ(adopted.outcome, InstallOutcome::Adopted);
  EXPECT_EQ(adopted.digest, digest_of({"blue", out}));
  const auto conflict = install(source_nat("192.0.2.1", 20001));
  EXPECT_EQ(conflict.outcome, InstallOutcome::Conflict);
  EXPECT_THAT(conflict.detail, HasSubstr("10.0.0.1:40000"));
  EXPECT_EQ(destination.get(here(out))->reply, out.reply) << "left alone";
}

TEST_F(AtDestination, ATakenExternalPortIsAConflictUnderEveryRule) {
  ConntrackEntry other = here(tcp("10.0.0.2", 1234, "198.51.100.7", 443));
  other.reply = source_nat("192.0.2.1", 20001).reply;
  destination.has(other);
  EXPECT_EQ(outcome(source_nat("192.0.2.1", 20001)), InstallOutcome::Conflict);
  scope.conflict_rule = common::CONFLICT_RULE_MOVED;
  EXPECT_EQ(outcome(source_nat("192.0.2.1", 20001)), InstallOutcome::Conflict);
  EXPECT_TRUE(destination.get(other)) << "another subject's connection stays";
}

TEST_F(AtDestination, MovedReplacesTheYoungerEntry) {
  scope.conflict_rule = common::CONFLICT_RULE_MOVED;
  const ConntrackEntry record = source_nat("192.0.2.1", 20001);
  destination.has(here(source_nat("192.0.2.1", 31000)));
  EXPECT_EQ(outcome(record), InstallOutcome::Replaced);
  EXPECT_EQ(destination.get(here(record))->reply, record.reply);

  const ConntrackEntry reverse = here(tcp("198.51.100.7", 443, "10.0.0.1", 40005));
  destination.has(reverse);
  EXPECT_EQ(outcome(tcp("10.0.0.1", 40005, "198.51.100.7", 443)), InstallOutcome::Replaced)
      << "seen first from its other end";
  EXPECT_FALSE(destination.get(reverse));
}

TEST_F(AtDestination, AFailedReplacementLeavesWhatWasThere) {
  scope.conflict_rule = common::CONFLICT_RULE_MOVED;
  const ConntrackEntry standing = here(source_nat("192.0.2.1", 31000));
  destination.has(standing);
  ConntrackEntry record = source_nat("192.0.2.1", 20001);
  record.helper = "unknown";
  EXPECT_EQ(outcome(record), InstallOutcome::Unsupported);
  ASSERT_TRUE(destination.get(standing));
  EXPECT_EQ(destination.get(standing)->reply, standing.reply);
}

TEST_F(AtDestination, OnlyIfAbsentLeavesEverythingAlone) {
  scope.conflict_rule = common::CONFLICT_RULE_MOVED;
  destination.has(here(source_nat("192.0.2.1", 31000)));
  const auto item = [](const ConntrackEntry& entry, bool ours) { return InstallItem{record(entry), ours, true}; };
  EXPECT_EQ(install(item(source_nat("192.0.2.1", 20001), false)).outcome, InstallOutcome::Adopted);
  EXPECT_EQ(install(item(source_nat("192.0.2.1", 20001), true)).outcome, InstallOutcome::Adopted);
  EXPECT_EQ(destination.get(here(out))->reply.destination_port, 31000);
  EXPECT_EQ(install(InstallItem{gone(out), true, true}).outcome, InstallOutcome::Removed);
  EXPECT_TRUE(destination.get(here(out)));
  EXPECT_EQ(install(item(tcp("10.0.0.1", 7, "198.51.100.7", 443), true)).outcome, InstallOutcome::Installed);
}

TEST_F(AtDestination, OursIsUpdatedAndDeleted) {
  EXPECT_EQ(outcome(out), InstallOutcome::Installed);
  ConntrackEntry closing = out;
  closing.tcp->state = TCP_CONNTRACK_FIN_WAIT;
  closing.mark = 8;
  EXPECT_EQ(install({record(closing), true}).outcome, InstallOutcome::Updated);
  EXPECT_EQ(destination.driver->read(scope, {key(out)})->at(0).digest, digest_of({"blue", closing}));

  EXPECT_EQ(install({record(source_nat("192.0.2.1", 20001)), true}).outcome, InstallOutcome::Updated);
  EXPECT_EQ(destination.get(here(out))->reply.destination_port, 20001) << "NAT cannot be added by an update";

  ConntrackEntry reopened = source_nat("192.0.2.1", 20001);
  reopened.status = IPS_CONFIRMED;
  reopened.tcp->state = TCP_CONNTRACK_SYN_SENT;
  EXPECT_EQ(install({record(reopened), true}).outcome, InstallOutcome::Updated);
  EXPECT_FALSE(destination.get(here(out))->status & IPS_ASSURED) << "ASSURED cannot be cleared by an update";

  reopened.helper = "ftp";
  EXPECT_EQ(install({record(reopened), true}).outcome, InstallOutcome::Updated);
  EXPECT_EQ(destination.get(here(out))->helper, "ftp") << "nor can a helper be added";

  EXPECT_EQ(install({gone(out), false}).outcome, InstallOutcome::Removed);
  EXPECT_EQ(destination.count(), 1U) << "not ours: left alone";
  EXPECT_EQ(install({gone(out), true}).outcome, InstallOutcome::Removed);
  EXPECT_EQ(destination.count(), 0U);
  EXPECT_EQ(install({gone(out), true}).outcome, InstallOutcome::Removed);
  EXPECT_EQ(install({record(out), true}).outcome, InstallOutcome::Installed) << "ended meanwhile: made again";
}

TEST_F(AtDestination, ItemsOfOneCallAreDoneInOrder) {
  ConntrackEntry closing = out;
  closing.tcp->state = TCP_CONNTRACK_FIN_WAIT;
  const auto results = destination.driver->install(scope, {{record(out)},
                                                           {record(tcp("10.0.0.2", 1, "198.51.100.7", 2))},
                                                           {record(closing), true},
                                                           {gone(out), true},
                                                           {record(out)}});
  ASSERT_TRUE(results);
  std::vector<InstallOutcome> outcomes;
  for (const auto& result : *results) outcomes.push_back(result.outcome);
  EXPECT_THAT(outcomes, ElementsAre(InstallOutcome::Installed, InstallOutcome::Foreign, InstallOutcome::Updated,
                                    InstallOutcome::Removed, InstallOutcome::Installed));
}

TEST_F(AtDestination, CapacityIsTheAgentsOrTheKernels) {
  auto config = config_with_zone(4);
  config.capacity = 2;
  Host small(config);
  const auto first = tcp("10.0.0.1", 1, "198.51.100.7", 443), second = tcp("10.0.0.1", 2, "198.51.100.7", 443);
  auto results = small.driver->install(scope, {{record(first)}, {record(second)}, {record(out)}});
  ASSERT_TRUE(results);
  EXPECT_EQ(results->at(1).outcome, InstallOutcome::Installed);
  EXPECT_EQ(results->at(2).outcome, InstallOutcome::NoCapacity);
  EXPECT_FALSE(small.driver->prepare(scope)->accepted);
  ASSERT_TRUE(small.driver->settle(scope, {key(first)}));
  EXPECT_TRUE(small.driver->prepare(scope)->accepted);
  EXPECT_EQ(small.driver->install(scope, {{record(out)}})->at(0).outcome, InstallOutcome::Installed);

  destination.conntrack->fail_creates(ENOMEM);
  EXPECT_EQ(outcome(out), InstallOutcome::NoCapacity);
}

TEST_F(AtDestination, EarlyEntriesAreHeldAndSettle) {
  const ConntrackEntry idle = udp("10.0.0.1", 1, "198.51.100.7", 53), busy = udp("10.0.0.1", 2, "198.51.100.7", 53);
  EXPECT_EQ(outcome(idle), InstallOutcome::Installed);
  EXPECT_EQ(outcome(busy), InstallOutcome::Installed);
  EXPECT_EQ(outcome(out), InstallOutcome::Installed);
  EXPECT_EQ(destination.get(here(idle))->timeout, 600U) << "held";
  EXPECT_EQ(destination.get(here(out))->timeout, 1000U) << "longer than the hold";
  destination.conntrack->advance(200);
  destination.clock.advance(200);
  ConntrackEntry refreshed = *destination.get(here(busy));
  refreshed.timeout = 120;
  destination.has(refreshed);
  ASSERT_TRUE(destination.driver->settle(scope, {key(idle), key(busy), key(out)}));
  EXPECT_EQ(destination.get(here(idle))->timeout, 100U) << "what it had at the source";
  EXPECT_EQ(destination.get(here(busy))->timeout, 120U) << "a packet set it";
  EXPECT_EQ(destination.get(here(out))->timeout, 800U);
}

TEST_F(AtDestination, PrepareSaysWhatStandsHere) {
  destination.has(here(out));
  destination.has(here(tcp("10.0.0.2", 1, "198.51.100.7", 443)));
  const auto prepared = destination.driver->prepare(scope);
  ASSERT_TRUE(prepared);
  EXPECT_TRUE(prepared->accepted);
  EXPECT_THAT(prepared->present, ElementsAre(key(out)));

  scope.context = "other";
  const auto no_context = destination.driver->prepare(scope);
  ASSERT_TRUE(no_context);
  EXPECT_FALSE(no_context->accepted);
  EXPECT_THAT(no_context->findings.at(0).detail(), HasSubstr("no context other"));
  scope.context = "default";
  scope.subject.mutable_interfaces(0)->set_vn_name("green");
  const auto no_vn = destination.driver->prepare(scope);
  ASSERT_TRUE(no_vn);
  EXPECT_FALSE(no_vn->accepted);
  EXPECT_EQ(no_vn->findings.at(0).code(), common::FINDING_UNSUPPORTED);
}

}  // namespace
}  // namespace sami::state::connection_tracking::test
