#include "runtime/file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "runtime/tests/folder.h"

namespace sami {
namespace {

using ::testing::HasSubstr;
using FileTest = sami::testing::FolderTest;

TEST_F(FileTest, WritesReplaceAndCreateDoesNot) {
  const std::string path = folder_ + "/a";
  ASSERT_TRUE(write_file(path, "one", 0640));
  ASSERT_TRUE(write_file(path, "two", 0600));
  EXPECT_EQ(*read_file(path, 100), "two");
  const auto created = create_file(path, "three", 0600);
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().kind, ErrorKind::InvalidInput);
  EXPECT_EQ(*read_file(path, 100), "two");
  ASSERT_TRUE(create_file(folder_ + "/b", "b", 0640));
  struct stat status = {};
  ASSERT_EQ(stat((folder_ + "/b").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2);  // nothing temporary is left
  EXPECT_FALSE(write_file(folder_ + "/no/such", "x", 0600));
}

TEST_F(FileTest, ReadsRefuseWhatIsTooLongOrNoFile) {
  ASSERT_TRUE(write_file(folder_ + "/a", std::string(100, 'x'), 0600));
  EXPECT_EQ(read_file(folder_ + "/a", 100)->size(), 100U);
  EXPECT_EQ(read_file(folder_ + "/a", 99).error().kind, ErrorKind::InvalidInput);
  EXPECT_THAT(read_file(folder_, 100).error().message, HasSubstr("is not a regular file"));
  ASSERT_EQ(mkfifo((folder_ + "/fifo").c_str(), 0600), 0);
  EXPECT_THAT(read_file(folder_ + "/fifo", 100).error().message, HasSubstr("is not a regular file"));
  EXPECT_EQ(read_file("/nowhere", 100).error().system_error, ENOENT);
}

TEST_F(FileTest, PrivateMeansClosedToGroupAndOthers) {
  for (const unsigned mode : {0640U, 0604U, 0660U}) {
    ASSERT_TRUE(write_file(folder_ + "/key", "k", mode));
    const auto read = read_private_file(folder_ + "/key", 100);
    ASSERT_FALSE(read);
    EXPECT_THAT(read.error().message, HasSubstr("expected 0600"));
  }
  ASSERT_TRUE(write_file(folder_ + "/key", "k", 0400));
  EXPECT_TRUE(read_private_file(folder_ + "/key", 100));
}

TEST_F(FileTest, PrivateFolderIsMadeOrChecked) {
  const std::string path = folder_ + "/a/b";
  ASSERT_TRUE(make_private_folder(path));
  ASSERT_TRUE(make_private_folder(path));
  struct stat status = {};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700U);
  chmod(path.c_str(), 0777);
  EXPECT_THAT(make_private_folder(path).error().message, HasSubstr("has mode 0777"));
  ASSERT_TRUE(write_file(folder_ + "/file", "", 0600));
  EXPECT_THAT(make_private_folder(folder_ + "/file").error().message, HasSubstr("is not a folder"));
}

}  // namespace
}  // namespace sami
