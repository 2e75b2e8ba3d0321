#include "runtime/loop.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace sami {
namespace {

using ::testing::ElementsAre;
constexpr auto patience = std::chrono::seconds(10);

TEST(LoopTest, TasksOfManyThreadsRunEachInItsOrder) {
  Loop loop;
  std::vector<std::vector<int>> seen(4);
  int total = 0;
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < seen.size(); ++t) {
    threads.emplace_back([&loop, &seen, &total, t] {
      for (int i = 0; i < 1000; ++i)
        loop.post([&seen, &total, t, i] {
          seen[t].push_back(i);
          ++total;
        });
    });
  }
  EXPECT_TRUE(loop.run_until([&] { return total == 4000; }, patience));
  for (auto& thread : threads) thread.join();
  for (const auto& numbers : seen) EXPECT_TRUE(std::is_sorted(numbers.begin(), numbers.end()));
}

TEST(LoopTest, TimersFireInTheOrderOfTheirTimes) {
  Loop loop;
  std::vector<int> order;
  const Instant now = loop.now();
  loop.call_at(now + std::chrono::milliseconds(20), [&] { order.push_back(3); });
  loop.call_at(now + std::chrono::milliseconds(10), [&] { order.push_back(1); });
  loop.call_at(now + std::chrono::milliseconds(10), [&] { order.push_back(2); });
  loop.call_at(Instant::never(), [&] { order.push_back(9); });
  const auto cancelled = loop.call_at(now + std::chrono::milliseconds(15), [&] { order.push_back(8); });
  EXPECT_TRUE(loop.cancel(cancelled));
  EXPECT_FALSE(loop.cancel(cancelled));
  EXPECT_FALSE(loop.cancel(0));
  EXPECT_TRUE(loop.run_until([&] { return order.size() == 3; }, patience));
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
  EXPECT_GE(loop.now() - now, std::chrono::milliseconds(20));
}

TEST(LoopTest, TimerMayBeSetAndCancelledFromATimer) {
  Loop loop;
  std::vector<int> order;
  Loop::TimerId other = 0;
  loop.call_after(Duration::zero(), [&] {
    order.push_back(1);
    EXPECT_TRUE(loop.cancel(other));
    loop.call_at(Instant{0}, [&] { order.push_back(2); });  // long past: in a later turn
    EXPECT_THAT(order, ElementsAre(1));
  });
  other = loop.call_after(Duration::zero(), [&] { order.push_back(9); });
  EXPECT_TRUE(loop.run_until([&] { return order.size() == 2; }, patience));
  EXPECT_THAT(order, ElementsAre(1, 2));
}

TEST(LoopTest, RunsUntilStoppedAndAgain) {
  Loop loop;
  int runs = 0;
  std::thread stopper([&] {
    loop.post([&] { ++runs; });
    loop.post([&] { loop.stop(); });
  });
  loop.run();
  stopper.join();
  loop.post([&] {
    ++runs;
    loop.stop();
  });
  loop.run();
  EXPECT_EQ(runs, 2);
}

TEST(LoopTest, ExecutorOutlivesItsLoop) {
  auto task = std::make_shared<int>(1);
  Executor executor;
  {
    Loop loop;
    executor = loop.executor();
    executor([task] {});
  }
  EXPECT_EQ(task.use_count(), 1);  // what was queued is gone with the loop
  executor([task] { FAIL(); });
  EXPECT_EQ(task.use_count(), 1);
}

TEST(LoopTest, SignalsRunTheirHandlerOnTheLoop) {
  Loop loop;
  std::vector<int> signals;
  loop.on_signals({SIGHUP, SIGTERM}, [&](int number) { signals.push_back(number); });
  raise(SIGHUP);
  EXPECT_TRUE(loop.run_until([&] { return signals.size() == 1; }, patience));
  raise(SIGHUP);
  raise(SIGTERM);
  EXPECT_TRUE(loop.run_until([&] { return signals.size() == 3; }, patience));
  EXPECT_THAT(signals, ::testing::UnorderedElementsAre(SIGHUP, SIGHUP, SIGTERM));
  bool replaced = false;
  loop.on_signals({SIGHUP}, [&](int) { replaced = true; });
  raise(SIGHUP);
  EXPECT_TRUE(loop.run_until([&] { return replaced; }, patience));
  EXPECT_EQ(signals.size(), 3U);
}

TEST(LoopTest, WatchesADescriptorUntilUnwatched) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  Loop loop;
  int calls = 0;
  const auto watch = loop.watch(ends[0], [&] {
    char byte;
    ++calls;
    EXPECT_EQ(::read(ends[0], &byte, 1), 1);
  });
  EXPECT_EQ(::write(ends[1], "ab", 2), 2);
  EXPECT_TRUE(loop.run_until([&] { return calls == 2; }, patience));
  loop.unwatch(watch);
  loop.unwatch(watch);
  EXPECT_EQ(::write(ends[1], "c", 1), 1);
  bool ran = false;
  loop.post([&] { ran = true; });
  EXPECT_TRUE(loop.run_until([&] { return ran; }, patience));
  EXPECT_EQ(calls, 2);
  ::close(ends[1]);
  bool gone = false;  // what is left, and then the end, can be read
  Loop::WatchId other = 0;
  other = loop.watch(ends[0], [&] {
    char byte;
    if (::read(ends[0], &byte, 1) == 1) return;
    gone = true;
    loop.unwatch(other);
    ::close(ends[0]);  // the descriptor was the caller's all along
  });
  EXPECT_TRUE(loop.run_until([&] { return gone; }, patience));
}

}  // namespace
}  // namespace sami
