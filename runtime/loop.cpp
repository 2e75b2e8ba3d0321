#include "runtime/loop.h"

#define ASIO_STANDALONE
#ifdef __SANITIZE_THREAD__
#define ASIO_DISABLE_FENCED_BLOCK  // ThreadSanitizer knows no fences, and g++ warns; the queue's mutex orders memory
#endif
#include <algorithm>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>
#include <cassert>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace sami {
namespace {

std::chrono::steady_clock::time_point time_point(Instant at) {
  return std::chrono::steady_clock::time_point(
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(Duration(at.nanoseconds)));
}

}  // namespace

class Loop::Implementation {
 public:
  // Foreign threads come in here; the io_context is gone once the loop is.
  void post(Task task) {
    const std::lock_guard lock(mutex_);
    if (context_) asio::post(*context_, std::move(task));
  }
  void stop() {
    const std::lock_guard lock(mutex_);
    if (context_) context_->stop();
  }

  void close() {
    std::unique_ptr<asio::io_context> context;
    {
      const std::lock_guard lock(mutex_);
      context = std::move(context_);
    }
    timers_.clear();
    due_.clear();
    signals_.clear();
    while (!watches_.empty()) unwatch(watches_.begin()->first);
    wakeup_.reset();
    work_.reset();
  }

  TimerId call_at(Instant at, Task task) {
    const TimerId id = next_timer_++;
    timers_.emplace(std::pair(at, id), std::move(task));
    due_.emplace(id, at);
    arm();
    return id;
  }

  bool cancel(TimerId timer) {
    const auto found = due_.find(timer);
    if (found == due_.end()) return false;
    timers_.erase({found->second, timer});
    due_.erase(found);
    return true;
  }

  void on_signal(int number, std::shared_ptr<std::function<void(int)>> handler) {
    auto& set = signals_[number];
    set = std::make_unique<asio::signal_set>(*context_, number);
    wait_for_signal(*set, std::move(handler));
  }

  WatchId watch(int descriptor, Task readable) {
    const WatchId id = next_watch_++;
    auto one = std::make_shared<Watch>(Watch{{*context_, descriptor}, std::move(readable)});
    watches_.emplace(id, one);
    wait_until_readable(id, one);
    return id;
  }

  void unwatch(WatchId id) {
    const auto found = watches_.find(id);
    if (found == watches_.end()) return;
    found->second->descriptor.release();  // cancels the wait; closes nothing
    watches_.erase(found);
  }

  void run() {
    context_->run();
    context_->restart();
  }

  bool run_until(const std::function<bool()>& condition, Duration limit) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
      const auto left = deadline - std::chrono::steady_clock::now();
      if (left <= Duration::zero() || context_->stopped()) break;
      context_->run_one_for(std::min<Duration>(left, std::chrono::milliseconds(10)));
    }
    if (context_->stopped()) context_->restart();
    return condition();
  }

 private:
  void arm() {
    if (timers_.empty()) return;
    const Instant first = timers_.begin()->first.first;
    if (first == Instant::never() || first >= armed_) return;
    armed_ = first;
    wakeup_->expires_at(time_point(first));
    wakeup_->async_wait([this](const asio::error_code& error) {
      if (!error) fire();
    });
  }

  void fire() {
    armed_ = Instant::never();
    const Instant now = system_clock().now();
    const TimerId end = next_timer_;  // timers that these tasks set come next time
    for (auto timer = timers_.begin(); timer != timers_.end() && timer->first.first <= now;) {
      if (timer->first.second >= end) {
        ++timer;
        continue;
      }
      auto node = timers_.extract(timer);
      due_.erase(node.key().second);
      node.mapped()();
      timer = timers_.begin();
    }
    arm();
  }

  void wait_for_signal(asio::signal_set& set, std::shared_ptr<std::function<void(int)>> handler) {
    set.async_wait([this, &set, handler](const asio::error_code& error, int number) {
      if (error) return;
      wait_for_signal(set, handler);  // first: the handler may replace the set
      (*handler)(number);
    });
  }

  struct Watch {
    asio::posix::stream_descriptor descriptor;
    Task readable;
  };
  void wait_until_readable(WatchId id, const std::shared_ptr<Watch>& one) {
    one->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                               [this, id, one](const asio::error_code& error) {
                                 if (error || watches_.count(id) == 0) return;
                                 one->readable();
                                 if (watches_.count(id) != 0) wait_until_readable(id, one);
                               });
  }

  std::mutex mutex_;
  std::unique_ptr<asio::io_context> context_ = std::make_unique<asio::io_context>();
  // Loop thread only, from here.
  // Always: without work an io_context stops, and that would look like stop().
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_{context_->get_executor()};
  std::unique_ptr<asio::steady_timer> wakeup_ = std::make_unique<asio::steady_timer>(*context_);
  Instant armed_ = Instant::never();
  TimerId next_timer_ = 1;
  std::map<std::pair<Instant, TimerId>, Task> timers_;
  std::unordered_map<TimerId, Instant> due_;
  std::map<int, std::unique_ptr<asio::signal_set>> signals_;
  WatchId next_watch_ = 1;
  std::map<WatchId, std::shared_ptr<Watch>> watches_;
};

Loop::Loop() : implementation_(std::make_shared<Implementation>()) {}
Loop::~Loop() { implementation_->close(); }

void Loop::post(Task task) { implementation_->post(std::move(task)); }

Executor Loop::executor() const {
  return [implementation = implementation_](Task task) { implementation->post(std::move(task)); };
}

Loop::TimerId Loop::call_at(Instant at, Task task) { return implementation_->call_at(at, std::move(task)); }
Loop::TimerId Loop::call_after(Duration after, Task task) { return call_at(now() + after, std::move(task)); }
bool Loop::cancel(TimerId timer) { return implementation_->cancel(timer); }
Instant Loop::now() const { return system_clock().now(); }

void Loop::on_signals(std::initializer_list<int> signals, std::function<void(int)> handler) {
  const auto shared = std::make_shared<std::function<void(int)>>(std::move(handler));
  for (const int number : signals) implementation_->on_signal(number, shared);
}

Loop::WatchId Loop::watch(int descriptor, Task readable) {
  return implementation_->watch(descriptor, std::move(readable));
}
void Loop::unwatch(WatchId watch) { implementation_->unwatch(watch); }

void Loop::run() { implementation_->run(); }
void Loop::stop() { implementation_->stop(); }
bool Loop::run_until(const std::function<bool()>& condition, Duration limit) {
  return implementation_->run_until(condition, limit);
}

}  // namespace sami
