// A source and a destination for tests of the driver, over in-memory tables.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernel/netlink/memory_conntrack.h"
#include "kernel/netlink/tests/entries.h"
#include "state/connection_tracking/driver.h"
#include "state/connection_tracking/record.h"

namespace sami::state::connection_tracking::test {

using netlink::ConntrackEntry;
using netlink::ConntrackOperation;
using netlink::ConntrackTcp;
using netlink::parse_address;
using netlink::test::tcp;
using netlink::test::tuple;
using netlink::test::udp;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class ManualClock : public Clock {
 public:
  Instant now() const override { return now_; }
  WallTime wall() const override { return 0; }
  void advance(std::uint32_t seconds) { now_ = now_ + std::chrono::seconds(seconds); }

 private:
  Instant now_;
};

inline std::string octets(const std::string& address) {
  const auto parsed = parse_address(address).value();
  return {parsed.octets.begin(), parsed.octets.begin() + (parsed.family == AF_INET ? 4 : 16)};
}

inline common::Prefix prefix(const std::string& address, std::uint32_t length) {
  common::Prefix made;
  made.set_address(octets(address));
  made.set_length(length);
  return made;
}

// VM1: 10.0.0.1 in VN blue.
inline Scope scope_of_vm1() {
  Scope scope;
  scope.migration_id = "m1";
  scope.epoch = 1;
  scope.subject.set_id("vm1");
  auto& interface = *scope.subject.add_interfaces();
  interface.set_vn_name("blue");
  interface.add_addresses(octets("10.0.0.1"));
  return scope;
}

inline ConnectionTrackingConfig config_with_zone(std::uint16_t zone) {
  ConnectionTrackingConfig config;
  config.contexts["default"] = {{"blue", zone}, {"red", 9}};
  config.external_addresses = {{*parse_address("192.0.2.1"), true}, {*parse_address("192.0.2.9"), false}};
  config.hold_seconds = 600;
  return config;
}

struct Host {
  explicit Host(ConnectionTrackingConfig config, netlink::MemoryConntrackOptions options = {})
      : conntrack(netlink::make_memory_conntrack(std::move(options))),
        driver(make_connection_tracking_driver(*conntrack, std::move(config), clock)) {}

  void has(const ConntrackEntry& entry) { conntrack->put(entry); }
  std::optional<ConntrackEntry> get(const ConntrackEntry& entry) {
    return conntrack->table().get({netlink::key_of(entry)})->at(0);
  }
  std::uint64_t count() { return conntrack->table().count().value(); }

  ManualClock clock;
  std::unique_ptr<netlink::MemoryConntrack> conntrack;
  std::unique_ptr<Driver> driver;
};

// The record that a source in zone 0 makes of the entry.
inline Record record(const ConntrackEntry& entry, const std::string& vn = "blue") {
  return {encode_key({vn, entry.original}), encode_body({vn, entry}), false, digest_of({vn, entry})};
}

inline Key key(const ConntrackEntry& entry, const std::string& vn = "blue") { return encode_key({vn, entry.original}); }

inline Record gone(const ConntrackEntry& entry) { return {key(entry), {}, true, 0}; }

inline std::vector<Key> keys(const std::vector<Record>& records) {
  std::vector<Key> keys;
  for (const auto& each : records) keys.push_back(each.key);
  return keys;
}

class ConnectionTracking : public testing::Test {
 protected:
  InstallResult install(const InstallItem& item) {
    const auto results = destination.driver->install(scope, {item});
    EXPECT_TRUE(results) << results.error().message;
    return results ? results->at(0) : InstallResult{};
  }
  InstallResult install(const ConntrackEntry& entry) { return install({record(entry)}); }
  InstallOutcome outcome(const ConntrackEntry& entry) { return install(entry).outcome; }

  Scope scope = scope_of_vm1();
  Host source{config_with_zone(0)};
  Host destination{config_with_zone(4)};
};

}  // namespace sami::state::connection_tracking::test
