// A thread that runs blocking jobs in order and hands their results to a loop. Used for driver calls.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "runtime/loop.h"
#include "runtime/result.h"

namespace sami {

class Worker {
 public:
  // name: of the thread, at most 15 characters are shown. capacity: jobs that may wait. `loop` runs the results and
  // must outlive this object.
  Worker(std::string name, std::size_t capacity, Loop& loop);
  // Loop thread. Waits for the job that runs, drops those that wait; no `done` runs any more.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Any thread. `job` runs on the worker's thread, then `done` with its value on the loop. Jobs must not throw.
  // Error: Retry when the queue is full; neither will run.
  template <typename Job, typename Done>
  Result<void> submit(Job job, Done done) {
    return enqueue([job = std::move(job), done = std::move(done)]() mutable -> std::function<void()> {
      if constexpr (std::is_void_v<std::invoke_result_t<Job>>) {
        job();
        return std::move(done);
      } else {
        auto value = std::make_shared<std::invoke_result_t<Job>>(job());
        return [done = std::move(done), value]() mutable { done(std::move(*value)); };
      }
    });
  }

  // Jobs that wait or run.
  std::size_t pending() const;

 private:
  // Runs on the thread; what it returns runs on the loop.
  using Task = std::function<std::function<void()>()>;
  Result<void> enqueue(Task task);

  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace sami
