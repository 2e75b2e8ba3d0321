#include "runtime/worker.h"

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace sami {

class Worker::Implementation {
 public:
  Implementation(std::string name, std::size_t capacity, Loop& loop)
      : name_(name.substr(0, 15)), capacity_(capacity), executor_(loop.executor()), thread_([this] { run(); }) {}

  void stop() {
    std::deque<Task> dropped;
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      dropped.swap(waiting_);
    }
    wakeup_.notify_one();
    thread_.join();
    *alive_ = false;
  }

  Result<void> enqueue(Task task) {
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.size() >= capacity_) {
        return failure(ErrorKind::Retry, "the queue of thread " + name_ + " is full (" + std::to_string(capacity_) +
                                             " jobs wait)");
      }
      waiting_.push_back(std::move(task));
    }
    wakeup_.notify_one();
    return {};
  }

  std::size_t pending() const {
    const std::lock_guard lock(mutex_);
    return waiting_.size() + (running_ ? 1 : 0);
  }

 private:
  void run() {
    pthread_setname_np(pthread_self(), name_.c_str());
    std::unique_lock lock(mutex_);
    while (true) {
      wakeup_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
      if (stopping_) return;
      Task task = std::move(waiting_.front());
      waiting_.pop_front();
      running_ = true;
      lock.unlock();
      executor_([alive = alive_, done = task()] {
        if (*alive) done();
      });
      task = nullptr;
      lock.lock();
      running_ = false;
    }
  }

  const std::string name_;
  const std::size_t capacity_;
  const Executor executor_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // touched on the loop only
  mutable std::mutex mutex_;
  std::condition_variable wakeup_;
  std::deque<Task> waiting_;
  bool running_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

Worker::Worker(std::string name, std::size_t capacity, Loop& loop)
    : implementation_(std::make_unique<Implementation>(std::move(name), capacity, loop)) {}
Worker::~Worker() { implementation_->stop(); }
Result<void> Worker::enqueue(Task task) { return implementation_->enqueue(std::move(task)); }
std::size_t Worker::pending() const { return implementation_->pending(); }

}  // namespace sami
