#include "runtime/audit.h"

#include <gmock/gmock.h>

#include "runtime/tests/folder.h"

namespace sami {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> details(Audit& audit, const AuditQuery& query) {
  std::vector<std::string> result;
  const std::vector<AuditRecord> records = audit.query(query).value();
  for (const AuditRecord& record : records) result.push_back(record.detail);
  return result;
}

TEST(AuditTest, AnswersByMigrationSubjectAndTime) {
  const auto audit = make_memory_audit();
  ASSERT_TRUE(audit->append({{100, "m1", "vm1", "state", "a"}, {200, "m2", "vm2", "state", "b"}}));
  ASSERT_TRUE(audit->append({{300, "m3", "vm1", "vote", "c"}, {250, "m1", "vm1", "outcome", "d"}}));
  EXPECT_THAT(details(*audit, {}), ElementsAre("a", "b", "c", "d"));
  EXPECT_THAT(details(*audit, {.subject_id = "vm1"}), ElementsAre("a", "c", "d"));
  EXPECT_THAT(details(*audit, {.migration_id = "m1"}), ElementsAre("a", "d"));
  EXPECT_THAT(details(*audit, {.subject_id = "vm1", .from = 200, .to = 250}), ElementsAre("d"));
  EXPECT_THAT(details(*audit, {.from = 200}), ElementsAre("b", "c", "d"));
  EXPECT_THAT(details(*audit, {.limit = 2}), ElementsAre("c", "d"));
  EXPECT_THAT(details(*audit, {.subject_id = "vm1' OR '1'='1"}), IsEmpty());
  const auto record = audit->query({.limit = 1}).value()[0];
  EXPECT_EQ(record.wall, 250);
  EXPECT_EQ(record.migration_id, "m1");
  EXPECT_EQ(record.subject_id, "vm1");
  EXPECT_EQ(record.event, "outcome");
}

TEST(AuditTest, KeepsTheNewestRows) {
  const auto audit = make_memory_audit(3);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(audit->append({{i, "m", "vm", "e", std::to_string(i)}}));
  EXPECT_THAT(details(*audit, {}), ElementsAre("7", "8", "9"));
}

using AuditFileTest = sami::testing::FolderTest;

TEST_F(AuditFileTest, IsThereAfterARestart) {
  ASSERT_TRUE((*open_audit(folder_ + "/state"))->append({{1, "m", "vm", "e", "kept"}}));
  const auto audit = open_audit(folder_ + "/state");
  ASSERT_TRUE(audit) << audit.error().message;
  EXPECT_THAT(details(**audit, {}), ElementsAre("kept"));
  EXPECT_EQ(open_audit(folder_ + "/state").error().kind, ErrorKind::InvalidInput);
}

}  // namespace
}  // namespace sami
