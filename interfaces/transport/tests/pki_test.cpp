#include "interfaces/transport/pki.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "runtime/file.h"

namespace sami::pki {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PkiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/sami-pki-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
    ASSERT_TRUE(make_authority(folder_ + "/ca", "dc.example"));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Result<Files> issue_here(const std::string& role, const std::string& name, std::uint32_t days = 30,
                           const std::vector<std::string>& hosts = {}) {
    return issue(folder_ + "/ca", role, name, days, hosts);
  }
  transport::Credentials credentials(const Files& files) const {
    return {folder_ + "/ca/ca.pem", files.certificate, files.key};
  }
  static unsigned mode(const std::string& path) {
    struct stat status = {};
    return stat(path.c_str(), &status) == 0 ? status.st_mode & 0777 : 0;
  }

  std::string folder_;
};

TEST_F(PkiTest, IssuedCertificateCarriesIdentityHostsAndTime) {
  const auto files = issue_here("som", "som1", 30, {"som.dc.example", "192.0.2.1", "2001:db8::1"});
  ASSERT_TRUE(files) << files.error().message;
  const auto certificate = read_certificate(files->certificate);
  ASSERT_TRUE(certificate) << certificate.error().message;
  EXPECT_EQ(certificate->identity.uri(), "spiffe://dc.example/sami/som/som1");
  EXPECT_THAT(certificate->hosts, ElementsAre("som.dc.example", "192.0.2.1", "2001:db8::1"));
  EXPECT_EQ(certificate->issuer, "SAMI CA");
  constexpr WallTime day = 86'400'000'000;
  EXPECT_NEAR(static_cast<double>(certificate->not_after - system_clock().wall()), 30.0 * day, 60e6);
  EXPECT_LT(certificate->not_before, system_clock().wall());
}

TEST_F(PkiTest, KeysAreClosedAndCredentialsHold) {
  const auto files = issue_here("soa", "fw1");
  ASSERT_TRUE(files);
  EXPECT_EQ(mode(files->key), 0600U);
  EXPECT_EQ(mode(folder_ + "/ca/ca.key"), 0600U);
  EXPECT_EQ(mode(folder_ + "/ca"), 0700U);
  const auto checked = check_credentials(credentials(*files));
  ASSERT_TRUE(checked) << checked.error().message;
  EXPECT_EQ(checked->identity.name, "fw1");
}

TEST_F(PkiTest, NothingIsOverwritten) {
  const auto first = issue_here("soa", "fw1");
  ASSERT_TRUE(first);
  const auto key = read_file(first->key, 10000);
  const auto again = issue_here("soa", "fw1");
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind, ErrorKind::InvalidInput);
  EXPECT_THAT(again.error().message, HasSubstr("exists already"));
  EXPECT_EQ(*read_file(first->key, 10000), *key);
  EXPECT_FALSE(make_authority(folder_ + "/ca", "dc.example"));
}

TEST_F(PkiTest, BadInputIsNamed) {
  EXPECT_THAT(issue_here("admin", "x").error().message, HasSubstr("expected one of som, soa, tde, operator, viewer"));
  EXPECT_THAT(issue_here("soa", "../x").error().message, HasSubstr("name \"../x\""));
  EXPECT_THAT(issue_here("soa", "x", 0).error().message, HasSubstr("expected 1 to 3650"));
  EXPECT_THAT(issue_here("som", "x", 1, {"a,DNS:b"}).error().message, HasSubstr("expected a DNS name or an address"));
  EXPECT_FALSE(make_authority(folder_ + "/other", "Upper.Case"));
  EXPECT_FALSE(issue(folder_ + "/nowhere", "soa", "x", 1, {}));
}

TEST_F(PkiTest, CheckSaysWhyCredentialsCannotBeUsed) {
  const auto good = issue_here("soa", "fw1");
  const auto other = issue_here("soa", "fw2");
  ASSERT_TRUE(good && other);
  ASSERT_TRUE(make_authority(folder_ + "/foreign", "dc.example"));
  const auto why = [](const transport::Credentials& files) {
    const auto checked = check_credentials(files);
    return checked ? std::string("fine") : checked.error().message;
  };
  auto files = credentials(*good);
  files.key_file = other->key;
  EXPECT_THAT(why(files), HasSubstr("is not the key of"));
  files = credentials(*good);
  files.ca_file = folder_ + "/foreign/ca.pem";
  EXPECT_THAT(why(files), HasSubstr("does not hold against"));
  files = credentials(*good);
  files.certificate_file = files.key_file;
  EXPECT_THAT(why(files), HasSubstr("is not a certificate"));
  files = credentials(*good);
  files.key_file = folder_ + "/nothing";
  EXPECT_THAT(why(files), HasSubstr("No such file"));
  files = credentials(*good);
  chmod(good->key.c_str(), 0644);
  EXPECT_THAT(why(files), HasSubstr("expected 0600"));
}

TEST_F(PkiTest, AuthorityIsNoIdentity) {
  const auto authority = read_certificate(folder_ + "/ca/ca.pem");
  ASSERT_FALSE(authority);
  EXPECT_THAT(authority.error().message, HasSubstr("is not an identity"));
}

TEST(IdentityTest, ParsesWhatItWrites) {
  const auto identity = transport::parse_identity("spiffe://dc.example/sami/soa/fw-1.rack_2");
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->uri(), "spiffe://dc.example/sami/soa/fw-1.rack_2");
}

TEST(IdentityTest, RefusesEverythingElse) {
  for (const char* uri :
       {"", "spiffe://", "spiffe://dc.example", "spiffe://dc.example/sami/soa", "spiffe://dc.example/sami/soa/",
        "spiffe:///sami/soa/x", "http://dc.example/sami/soa/x", "spiffe://dc.example/sami/root/x",
        "spiffe://dc.example/sami/soa/x/y", "spiffe://dc.example/sami/soa/-x", "spiffe://DC/sami/soa/x",
        "spiffe://dc.example/other/soa/x", "spiffe://dc.example/sami/soa/x\n"})
    EXPECT_FALSE(transport::parse_identity(uri)) << uri;
}

}  // namespace
}  // namespace sami::pki
