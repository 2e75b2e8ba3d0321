// Both twins of the journal: what they share, then what only the one on disk does.
#include "runtime/journal.h"

#include <gmock/gmock.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "runtime/file.h"
#include "runtime/tests/folder.h"

namespace sami {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class JournalTest : public sami::testing::FolderTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    open();
  }
  // Again: what a restart of the daemon sees.
  void open() {
    if (GetParam() == std::string("memory")) {
      journal_ =
          std::make_unique<MemoryJournal>(journal_ ? static_cast<MemoryJournal&>(*journal_).image() : JournalImage());
      return;
    }
    journal_.reset();
    auto opened = open_journal(folder_ + "/state");
    ASSERT_TRUE(opened) << opened.error().message;
    journal_ = std::move(*opened);
  }
  JournalImage image() { return journal_->load().value(); }

  std::unique_ptr<Journal> journal_;
};

TEST_P(JournalTest, HoldsWhatWasCommitted) {
  EXPECT_THAT(image(), IsEmpty());
  ASSERT_TRUE(journal_->commit({{"a", "1"}, {"b/c", "2"}, {"empty", ""}}));
  ASSERT_TRUE(journal_->commit({{"a", "3"}, {"b/c", std::nullopt}, {"never there", std::nullopt}}));
  const auto expected = UnorderedElementsAre(Pair("a", "3"), Pair("empty", ""));
  EXPECT_THAT(image(), expected);
  open();
  EXPECT_THAT(image(), expected);
}

TEST_P(JournalTest, LaterWritesOfATransactionWin) {
  ASSERT_TRUE(journal_->commit({{"a", "1"}, {"a", std::nullopt}, {"a", "2"}, {"b", "1"}, {"b", std::nullopt}}));
  EXPECT_THAT(image(), UnorderedElementsAre(Pair("a", "2")));
}

TEST_P(JournalTest, BytesComeBackAsTheyWere) {
  std::string bytes(70000, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  ASSERT_TRUE(journal_->commit({{std::string("k\0\xff", 3), bytes}}));
  open();
  EXPECT_THAT(image(), UnorderedElementsAre(Pair(std::string("k\0\xff", 3), bytes)));
}

TEST_P(JournalTest, EmptyKeyIsRefusedAndNothingIsWritten) {
  const auto done = journal_->commit({{"a", "1"}, {"", "2"}});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().kind, ErrorKind::InvalidInput);
  EXPECT_THAT(image(), IsEmpty());
  EXPECT_TRUE(journal_->commit({}));
}

INSTANTIATE_TEST_SUITE_P(Twins, JournalTest, ::testing::Values("memory", "sqlite"),
                         [](const auto& twin) { return std::string(twin.param); });

TEST(MemoryJournalTest, FailsWhenToldAndChangesNothing) {
  MemoryJournal journal;
  journal.fail_commits(2, {ErrorKind::Failed, "disk full", ENOSPC});
  EXPECT_EQ(journal.commit({{"a", "1"}}).error().system_error, ENOSPC);
  EXPECT_FALSE(journal.commit({{"a", "1"}}));
  EXPECT_THAT(journal.image(), IsEmpty());
  EXPECT_TRUE(journal.commit({{"a", "1"}}));
  EXPECT_EQ(journal.commits(), 1U);
}

class JournalFileTest : public sami::testing::FolderTest {
 protected:
  std::string state() const { return folder_ + "/state"; }
  void write_one() { ASSERT_TRUE((*open_journal(state()))->commit({{"a", "1"}})); }
  std::string why() {
    const auto opened = open_journal(state());
    return opened ? "" : std::string(to_string(opened.error().kind)) + ": " + opened.error().message;
  }
};

TEST_F(JournalFileTest, FilesAreClosedToOthers) {
  const auto journal = open_journal(state());
  ASSERT_TRUE(journal && (*journal)->commit({{"a", "1"}}));
  struct stat status = {};
  ASSERT_EQ(stat(state().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700U);
  for (const auto& file : std::filesystem::directory_iterator(state())) {
    ASSERT_EQ(stat(file.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600U) << file.path();
  }
}

// Runs `child` in another process; true: it said so.
bool in_another_process(const std::function<bool()>& child) {
  const pid_t pid = fork();
  if (pid == 0) _exit(child() ? 0 : 1);
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_F(JournalFileTest, TwoDaemonsCannotShareIt) {
  const auto first = open_journal(state());
  ASSERT_TRUE(first && (*first)->commit({{"a", "1"}}));
  EXPECT_THAT(why(), HasSubstr("invalid input: " + state() + "/journal.db is in use by another process"));
  EXPECT_TRUE(in_another_process([this] { return why().find("in use by another process") != std::string::npos; }));
}

TEST_F(JournalFileTest, SurvivesAKillInTheMiddle) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto journal = open_journal(state());
    for (int i = 0; journal; ++i) {
      if (!(*journal)->commit({{"first", std::to_string(i)}, {"second", std::to_string(i)}})) _exit(1);
      if (i == 20 && write(ready[1], "x", 1) != 1) _exit(1);
    }
    _exit(1);
  }
  close(ready[1]);
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  close(ready[0]);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  const auto journal = open_journal(state());
  ASSERT_TRUE(journal) << journal.error().message;
  const auto image = (*journal)->load().value();
  EXPECT_EQ(image.at("first"), image.at("second"));
  EXPECT_GE(std::stoi(image.at("first")), 20);
}

TEST_F(JournalFileTest, FullDiskIsAnErrorAndLosesNothing) {
  auto journal = open_journal(state());
  ASSERT_TRUE(journal && (*journal)->commit({{"a", "1"}}));
  // A file-size limit stands for the full disk.
  const auto before_signal = signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit low = {64 << 10, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &low);
  const auto failed = (*journal)->commit({{"a", "2"}, {"big", std::string(1 << 20, 'x')}});
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, before_signal);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().kind, ErrorKind::Failed);
  EXPECT_THAT((*journal)->load().value(), UnorderedElementsAre(Pair("a", "1")));
  EXPECT_TRUE((*journal)->commit({{"a", "3"}}));
}

TEST_F(JournalFileTest, WhatIsNotAJournalIsNamed) {
  write_one();
  const std::string path = state() + "/journal.db";
  const std::string good = *read_file(path, 1 << 20);
  ASSERT_TRUE(write_file(path, "this is not a database, it is a letter to the operator", 0600));
  EXPECT_THAT(why(), HasSubstr("corrupt: " + path));
  std::string damaged = good;
  for (std::size_t i = 4096; i < damaged.size(); ++i) damaged[i] = static_cast<char>(i);
  ASSERT_TRUE(write_file(path, damaged, 0600));
  EXPECT_THAT(why(), HasSubstr("corrupt: " + path));
  EXPECT_THAT(why(), HasSubstr("put a copy back"));
}

TEST_F(JournalFileTest, OtherSchemasAreRefused) {
  write_one();
  const auto alter = [this](const char* sql) {
    sqlite3* handle = nullptr;
    sqlite3_open((state() + "/journal.db").c_str(), &handle);
    EXPECT_EQ(sqlite3_exec(handle, sql, nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(handle);
  };
  alter("PRAGMA user_version=2");
  EXPECT_THAT(why(), HasSubstr("has schema version 2: this program expects 1"));
  alter("PRAGMA application_id=5");
  EXPECT_THAT(why(), HasSubstr("is a database of another program"));
}

TEST_F(JournalFileTest, FolderOpenToOthersIsRefused) {
  std::filesystem::create_directory(state());
  chmod(state().c_str(), 0777);
  EXPECT_THAT(why(), HasSubstr("only user"));
}

}  // namespace
}  // namespace sami
