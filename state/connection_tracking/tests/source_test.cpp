// The driver at the source: what is the subject's, what changed, what is released.
#include "state/connection_tracking/tests/fixture.h"

namespace sami::state::connection_tracking::test {
namespace {

class AtSource : public ConnectionTracking {
 protected:
  std::vector<Key> snapshot() {
    const auto records = source.driver->snapshot(scope);
    EXPECT_TRUE(records) << records.error().message;
    return records ? keys(*records) : std::vector<Key>{};
  }
  Changes changes() {
    const auto changed = source.driver->changes(scope);
    EXPECT_TRUE(changed) << changed.error().message;
    return changed.value_or(Changes{});
  }

  const ConntrackEntry out = tcp("10.0.0.1", 40000, "198.51.100.7", 443);
  const ConntrackEntry in = udp("198.51.100.7", 5000, "10.0.0.1", 53);
  const ConntrackEntry foreign = tcp("10.0.0.2", 40000, "198.51.100.7", 443);
};

TEST_F(AtSource, SnapshotHasTheSubjectsConnectionsOnly) {
  ConntrackEntry to_external = tcp("198.51.100.7", 6000, "192.0.2.1", 80);
  to_external.reply = tuple(IPPROTO_TCP, "10.0.0.1", 8080, "198.51.100.7", 6000);
  ConntrackEntry other_zone = out;
  other_zone.zone = 7;
  ConntrackEntry only_translated = tcp("198.51.100.7", 6001, "10.0.0.1", 80);
  only_translated.reply = tuple(IPPROTO_TCP, "10.0.0.3", 80, "198.51.100.7", 6001);
  for (const auto& entry : {out, in, foreign, to_external, other_zone, only_translated}) source.has(entry);
  EXPECT_THAT(snapshot(), UnorderedElementsAre(key(out), key(in), key(to_external)));
}

TEST_F(AtSource, LearnedAddressesCountWithinTheirPrefix) {
  scope.subject.mutable_interfaces(0)->clear_addresses();
  *scope.subject.mutable_interfaces(0)->add_learned_within() = prefix("10.0.0.0", 31);
  source.has(out);
  source.has(foreign);
  EXPECT_THAT(snapshot(), ElementsAre(key(out)));
}

TEST_F(AtSource, PeerIsTheOtherEndAsItKnowsItself) {
  ConntrackEntry to_virtual = tcp("10.0.0.1", 40001, "203.0.113.1", 80);
  to_virtual.reply = tuple(IPPROTO_TCP, "198.51.100.8", 8080, "10.0.0.1", 40001);
  for (const auto& entry : {out, in, to_virtual}) source.has(entry);
  *scope.peers.add_include() = prefix("198.51.100.0", 24);
  EXPECT_EQ(snapshot().size(), 3U);
  *scope.peers.add_exclude() = prefix("198.51.100.7", 32);
  EXPECT_THAT(snapshot(), ElementsAre(key(to_virtual)));
  scope.peers.clear_exclude();
  *scope.peers.mutable_include(0) = prefix("203.0.113.0", 24);
  EXPECT_TRUE(snapshot().empty());
}

TEST_F(AtSource, ChangesNameWhatHappenedInTheScope) {
  EXPECT_FALSE(source.driver->changes(scope)) << "not followed";
  source.has(out);
  ASSERT_TRUE(source.driver->follow(scope));
  EXPECT_TRUE(changes().keys.empty());
  source.has(in);
  source.has(foreign);
  source.conntrack->erase(netlink::key_of(out));
  ASSERT_TRUE(source.driver->follow(scope)) << "following twice is following once";
  EXPECT_THAT(changes().keys, UnorderedElementsAre(key(in), key(out)));
  EXPECT_TRUE(changes().keys.empty());
  const auto read = source.driver->read(scope, {key(out), key(in)});
  ASSERT_TRUE(read);
  EXPECT_TRUE(read->at(0).gone);
  EXPECT_EQ(read->at(1).digest, digest_of({"blue", in}));
  ASSERT_TRUE(source.driver->unfollow(scope));
  EXPECT_FALSE(source.driver->changes(scope));
}

TEST_F(AtSource, ScopesAreFollowedApart) {
  Scope other = scope;
  other.migration_id = "m2";
  *other.subject.mutable_interfaces(0)->mutable_addresses(0) = octets("10.0.0.2");
  ASSERT_TRUE(source.driver->follow(scope));
  ASSERT_TRUE(source.driver->follow(other));
  source.has(out);
  source.has(foreign);
  EXPECT_THAT(changes().keys, ElementsAre(key(out)));
  ASSERT_TRUE(source.driver->unfollow(scope));
  EXPECT_THAT(source.driver->changes(other)->keys, ElementsAre(key(foreign)));
}

TEST_F(AtSource, LostOrTooManyEventsAreAnOverrun) {
  ASSERT_TRUE(source.driver->follow(scope));
  source.has(out);
  source.conntrack->overrun_events();
  EXPECT_TRUE(changes().overrun);
  EXPECT_FALSE(changes().overrun);

  auto config = config_with_zone(0);
  config.maximum_changes = 2;
  Host small(config);
  ASSERT_TRUE(small.driver->follow(scope));
  for (std::uint16_t port = 1; port <= 3; ++port) small.has(tcp("10.0.0.1", port, "198.51.100.7", 443));
  EXPECT_TRUE(small.driver->changes(scope)->overrun);
}

TEST_F(AtSource, EntriesThatEmitNoEventsAreLookedAt) {
  source.conntrack->put_silent(out);
  source.conntrack->put_silent(in);
  ASSERT_TRUE(source.driver->follow(scope));
  EXPECT_TRUE(changes().keys.empty()) << "nothing changed yet";
  ConntrackEntry closing = out;
  closing.tcp->state = TCP_CONNTRACK_FIN_WAIT;
  source.conntrack->put_silent(closing);
  EXPECT_THAT(changes().keys, ElementsAre(key(out)));
  source.conntrack->erase(netlink::key_of(in));
  EXPECT_THAT(changes().keys, ElementsAre(key(in)));
  EXPECT_TRUE(changes().keys.empty());
}

TEST_F(AtSource, ReleaseDeletesTheSubjectsOnly) {
  for (const auto& entry : {out, in, foreign}) source.has(entry);
  const ConntrackEntry later = tcp("10.0.0.1", 40002, "198.51.100.7", 443);
  EXPECT_EQ(source.driver->remove(scope, {key(out), key(later)}).value_or(99), 1U);
  source.has(later);
  EXPECT_EQ(source.driver->sweep(scope).value_or(99), 2U);
  EXPECT_EQ(source.driver->sweep(scope).value_or(99), 0U);
  EXPECT_EQ(source.count(), 1U);
  EXPECT_TRUE(source.get(foreign));
}

}  // namespace
}  // namespace sami::state::connection_tracking::test
