// The event loop: one thread, everything a daemon owns runs on it. Other threads only post.
//
// Time is CLOCK_MONOTONIC (system_clock() of runtime/clock.h). Tasks must not block for long and must not throw.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>

#include "runtime/clock.h"

namespace sami {

// Runs the function later on its owner's loop. Any thread may call it.
using Executor = std::function<void(std::function<void()>)>;

class Loop {
 public:
  using Task = std::function<void()>;
  using TimerId = std::uint64_t;              // 0 is never given out

  Loop();
  ~Loop();                                    // drops what is queued
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Any thread. Tasks run in the order in which they were posted.
  void post(Task task);
  // post() as a value. Safe to call after the loop is gone: the task is dropped (and destroyed on the caller's thread).
  Executor executor() const;

  // Loop thread only (or before run()). A timer fires once; Instant::never() never; a past instant at once, but
  // never from inside call_at(). Timers of the same instant fire in the order in which they were set.
  TimerId call_at(Instant at, Task task);
  TimerId call_after(Duration after, Task task);
  // False: it has fired, was cancelled, or was never set (0 is fine).
  bool cancel(TimerId timer);
  Instant now() const;

  // Loop thread only (or before run()). Replaces an earlier handler of these signals; the handler gets the number.
  void on_signals(std::initializer_list<int> signals, std::function<void(int)> handler);

  // Loop thread only (or before run()). Calls `readable` whenever the descriptor can be read or its peer is gone, until
  // unwatch(); the descriptor stays the caller's, who unwatches it before closing it.
  using WatchId = std::uint64_t;              // 0 is never given out
  WatchId watch(int descriptor, Task readable);
  void unwatch(WatchId watch);                // 0, or one that is gone, is fine

  // Runs until stop(). Blocks. May be called again.
  void run();
  // Any thread. Returns at once; run() returns after the task that is running.
  void stop();
  // Runs until condition() holds (looked at after each task and at least every 10 ms), or for at most `limit`.
  // Returns the condition. For tests and one-shot tools.
  bool run_until(const std::function<bool()>& condition, Duration limit);

 private:
  class Implementation;
  std::shared_ptr<Implementation> implementation_;
};

}  // namespace sami
