#include "runtime/worker.h"

#include <gmock/gmock.h>

#include <future>
#include <thread>
#include <vector>

namespace sami {
namespace {

constexpr auto patience = std::chrono::seconds(10);

TEST(WorkerTest, JobsRunInOrderElsewhereAndResultsComeBack) {
  Loop loop;
  Worker worker("driver", 200, loop);
  const auto here = std::this_thread::get_id();
  std::vector<int> results;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(worker.submit([i, here] { return std::this_thread::get_id() == here ? -1 : i; },
                              [&](int result) { results.push_back(result); }));
  }
  bool done = false;
  ASSERT_TRUE(worker.submit([] {}, [&] { done = true; }));
  ASSERT_TRUE(loop.run_until([&] { return done; }, patience));
  ASSERT_EQ(results.size(), 100U);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(results[static_cast<std::size_t>(i)], i);
}

TEST(WorkerTest, FullQueueSaysRetry) {
  Loop loop;
  std::promise<void> release;
  std::promise<void> running;
  Worker worker("driver", 2, loop);
  ASSERT_TRUE(worker.submit([&running, gate = release.get_future().share()] {
    running.set_value();
    gate.wait();
  }, [] {}));
  running.get_future().wait();
  ASSERT_TRUE(worker.submit([] {}, [] {}));
  ASSERT_TRUE(worker.submit([] {}, [] {}));
  EXPECT_EQ(worker.pending(), 3U);
  const auto full = worker.submit([] {}, [] {});
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().kind, ErrorKind::Retry);
  release.set_value();
  EXPECT_TRUE(loop.run_until([&] { return worker.pending() == 0; }, patience));
}

TEST(WorkerTest, AfterItsEndNothingOfItRuns) {
  Loop loop;
  bool ran = false;
  {
    Worker worker("driver", 10, loop);
    std::promise<void> finished;
    ASSERT_TRUE(worker.submit([&finished] { finished.set_value(); }, [&ran] { ran = true; }));
    finished.get_future().wait();
  }
  EXPECT_FALSE(loop.run_until([&] { return ran; }, std::chrono::milliseconds(20)));
}

}  // namespace
}  // namespace sami
