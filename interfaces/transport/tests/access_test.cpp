#include "interfaces/transport/access.h"

#include <gmock/gmock.h>

namespace sami::transport {
namespace {

bool allowed(const char* method, const char* role, const char* domain = "dc.example") {
  return check_access(method, {domain, role, "x"}, "dc.example").has_value();
}

TEST(AccessTest, EachServiceHasItsRole) {
  EXPECT_TRUE(allowed("/sami.if_m_a.v1.StateOrchestration/Session", "soa"));
  EXPECT_TRUE(allowed("/sami.if_m_t.v1.TopologyDiscovery/Session", "tde"));
  EXPECT_TRUE(allowed("/sami.management.v1.Master/StartMigration", "operator"));
  for (const char* role : {"som", "tde", "operator", "viewer"})
    EXPECT_FALSE(allowed("/sami.if_m_a.v1.StateOrchestration/Session", role)) << role;
  for (const char* role : {"som", "soa", "tde", "viewer"})
    EXPECT_FALSE(allowed("/sami.management.v1.Master/StartMigration", role)) << role;
}

TEST(AccessTest, ViewerMayLookAndNotTouch) {
  EXPECT_TRUE(allowed("/sami.management.v1.Master/ListMigrations", "viewer"));
  for (const char* method : {"DrainHost", "AbortMigration", "ForceMigration", "ResolveMigration", "SomethingNew"})
    EXPECT_FALSE(allowed(("/sami.management.v1.Master/" + std::string(method)).c_str(), "viewer")) << method;
}

TEST(AccessTest, WhatIsNotInTheTableIsDenied) {
  EXPECT_FALSE(allowed("/grpc.reflection.v1.ServerReflection/Info", "operator"));
  EXPECT_FALSE(allowed("", "operator"));
}

TEST(AccessTest, ForeignDomainIsDeniedAndToldWhatWasExpected) {
  const auto access =
      check_access("/sami.if_m_a.v1.StateOrchestration/Session", {"other.example", "soa", "fw1"}, "dc.example");
  ASSERT_FALSE(access);
  EXPECT_THAT(access.error().message, testing::HasSubstr("expected dc.example"));
}

}  // namespace
}  // namespace sami::transport
