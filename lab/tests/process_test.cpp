// Programs started, talked to and ended; and the command line of the traffic generator.
#include "lab/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lab/generator/loop.h"
#include "lab/poll.h"

namespace sami::lab {
namespace {

using ::testing::HasSubstr;

TEST(Run, FeedsInputAndReturnsBothOutputs) {
  RunOptions options;
  options.input = std::string(1 << 20, 'x');  // more than a pipe holds
  const auto done = run({"cat"}, options);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->output, options.input);
  // A program that does not read what it is fed is no failure of ours.
  EXPECT_TRUE(run({"true"}, options));
}

TEST(Run, FailureHasTheProgramsOwnWords) {
  const auto failed = run({"ls", "/no/such/file"});
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, HasSubstr("No such file"));
  EXPECT_EQ(run({"no-such-program"}).error().kind, ErrorKind::Failed);
  RunOptions lenient;
  lenient.ignore_status = true;
  EXPECT_EQ(run({"false"}, lenient)->status, 1);
}

TEST(Run, IsEndedAtItsDeadline) {
  RunOptions options;
  options.deadline = milliseconds(50);
  EXPECT_EQ(run({"sleep", "60"}, options).error().kind, ErrorKind::Retry);
}

TEST(Daemon, IsStoppedByItsIdentityOnly) {
  const std::string log = ::testing::TempDir() + "/daemon-" + std::to_string(::getpid()) + ".log";
  auto started = start_daemon({"sleep", "60"}, "", log);
  ASSERT_TRUE(started);
  EXPECT_TRUE(is_running(*started));
  EXPECT_EQ(::getsid(started->pid), started->pid);
  ProcessIdentity other = *started;
  other.start_time -= 1;  // as if the pid had been used again
  EXPECT_TRUE(stop_process(other));
  EXPECT_TRUE(is_running(*started));
  EXPECT_TRUE(stop_process(*started));
  EXPECT_FALSE(is_running(*started));
  ::unlink(log.c_str());
}

TEST(Daemon, ThatIgnoresTermIsKilled) {
  auto stubborn = Conversation::start({"sh", "-c", "trap '' TERM; echo ready; while :; do read x; done"}, "");
  ASSERT_TRUE(stubborn);
  EXPECT_EQ(*stubborn->hear(milliseconds(5000)), "ready");
  EXPECT_TRUE(stop_process(stubborn->identity(), milliseconds(50)));
}

TEST(Conversation, EndsWithItsObject) {
  ProcessIdentity identity;
  {
    auto talk = Conversation::start({"cat"}, "");
    ASSERT_TRUE(talk);
    identity = talk->identity();
    ASSERT_TRUE(talk->say("one"));
    EXPECT_EQ(*talk->hear(milliseconds(5000)), "one");
    EXPECT_EQ(talk->hear(milliseconds(10)).error().kind, ErrorKind::Retry);
    talk->close_input();
    EXPECT_EQ(talk->hear(milliseconds(5000)).error().kind, ErrorKind::Reconnect);
  }
  EXPECT_FALSE(is_running(identity));
}

TEST(GeneratorOptions, AreCheckedByName) {
  using generator::parse_options;
  const auto good = parse_options({"echo", "--address", "10.0.0.1", "--port", "7001", "--connections", "3"});
  ASSERT_TRUE(good);
  EXPECT_EQ(good->port, 7001);
  EXPECT_EQ(good->connections, 3);
  EXPECT_THAT(parse_options({"shout"}).error().message, HasSubstr("tcp-server|udp-server"));
  EXPECT_THAT(parse_options({"udp", "--port", "70000"}).error().message, HasSubstr("--port: '70000'"));
  EXPECT_THAT(parse_options({"udp", "--colour", "1"}).error().message, HasSubstr("'--colour'"));
  EXPECT_FALSE(generator::open_client({"udp", "not-an-address", 1}, SOCK_DGRAM));
}

}  // namespace
}  // namespace sami::lab
