// gRPC calls that are answered from another thread (callback API): finished exactly once, by an answer, by the caller
// going away or by the daemon stopping, whichever comes first. Private to operator_service.cpp. Thread-safe.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "som/problem.h"

namespace sami::som {

grpc::Status to_status(const Problem& problem);

class Call {
 public:
  virtual ~Call() = default;
  virtual void end(const grpc::Status& status) = 0;
};

// Those that run: keeps them alive until gRPC is done with them.
class Calls {
 public:
  // False: too many run, or the daemon stops; the call was ended.
  bool add(std::shared_ptr<Call> call) {
    Call& added = *call;
    grpc::Status refusal;
    {
      const std::lock_guard lock(mutex_);
      running_.emplace(&added, std::move(call));
      if (stopped_)
        refusal = {grpc::StatusCode::UNAVAILABLE, "the daemon is stopping"};
      else if (running_.size() > kMaximum)
        refusal = {grpc::StatusCode::RESOURCE_EXHAUSTED, "too many calls at once; try again"};
    }
    if (!refusal.ok()) added.end(refusal);
    return refusal.ok();
  }
  // The reference that kept it alive.
  std::shared_ptr<Call> remove(Call* call) {
    const std::lock_guard lock(mutex_);
    auto node = running_.extract(call);
    return node.empty() ? nullptr : std::move(node.mapped());
  }
  void stop() {
    std::map<Call*, std::shared_ptr<Call>> running;
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      running = running_;
    }
    for (const auto& [key, call] : running) call->end({grpc::StatusCode::UNAVAILABLE, "the daemon is stopping"});
  }

 private:
  static constexpr std::size_t kMaximum = 2'000;
  std::mutex mutex_;
  bool stopped_ = false;
  std::map<Call*, std::shared_ptr<Call>> running_;
};

template <typename Message>
class UnaryCall final : public grpc::ServerUnaryReactor,
                        public Call,
                        public std::enable_shared_from_this<UnaryCall<Message>> {
 public:
  UnaryCall(Calls& calls, Message* reply) : calls_(calls), reply_(reply) {}

  void answer(Answer<Message> answer) {
    if (finished_.exchange(true)) return;
    const auto self = this->shared_from_this();      // OnDone may come from within Finish
    if (answer) *reply_ = std::move(*answer);
    this->Finish(answer ? grpc::Status::OK : to_status(answer.error()));
  }
  void end(const grpc::Status& status) override {
    if (finished_.exchange(true)) return;
    const auto self = this->shared_from_this();
    this->Finish(status);
  }
  void OnCancel() override { end(grpc::Status::CANCELLED); }
  void OnDone() override { calls_.remove(this); }

 private:
  Calls& calls_;
  Message* const reply_;               // gRPC's, until Finish
  std::atomic<bool> finished_{false};
};

// A stream of messages to the caller, in order. One gRPC operation at a time.
template <typename Message>
class StreamCall final : public grpc::ServerWriteReactor<Message>,
                         public Call,
                         public std::enable_shared_from_this<StreamCall<Message>> {
 public:
  // gone: called once, on a gRPC thread, when the call is over.
  StreamCall(Calls& calls, std::function<void()> gone) : calls_(calls), gone_(std::move(gone)) {}

  void push(Message message) {
    std::unique_lock lock(mutex_);
    if (last_) return;
    queued_bytes_ += message.ByteSizeLong();
    queue_.push_back(std::move(message));
    const bool slow = queued_bytes_ > kMaximumQueued;
    lock.unlock();
    if (slow)
      end({grpc::StatusCode::RESOURCE_EXHAUSTED, "the caller reads too slowly"});
    else
      advance();
  }
  // After what was pushed.
  void finish(const grpc::Status& status) {
    {
      const std::lock_guard lock(mutex_);
      if (last_) return;
      last_ = status;
    }
    advance();
  }
  // At once, or when the write that runs is over.
  void end(const grpc::Status& status) override {
    {
      const std::lock_guard lock(mutex_);
      if (over_) return;
      queue_.clear();
      last_ = status;
    }
    advance();
  }
  void OnWriteDone(bool written) override {
    {
      const std::lock_guard lock(mutex_);
      writing_ = false;
    }
    if (!written) end(grpc::Status::CANCELLED);
    advance();
  }
  void OnCancel() override { end(grpc::Status::CANCELLED); }
  void OnDone() override {
    gone_();
    calls_.remove(this);
  }

 private:
  static constexpr std::size_t kMaximumQueued = 32 << 20;

  // Begins the next write, or ends the call when nothing more is to come.
  void advance() {
    const auto self = this->shared_from_this();      // OnDone may come from within Finish
    std::unique_lock lock(mutex_);
    if (over_ || writing_) return;
    if (!queue_.empty()) {
      current_ = std::move(queue_.front());
      queue_.pop_front();
      queued_bytes_ -= current_.ByteSizeLong();
      writing_ = true;
      lock.unlock();
      this->StartWrite(&current_);
    } else if (last_) {
      over_ = true;
      lock.unlock();
      this->Finish(*last_);
    }
  }

  Calls& calls_;
  const std::function<void()> gone_;
  std::mutex mutex_;
  std::deque<Message> queue_;
  std::size_t queued_bytes_ = 0;
  Message current_;
  bool writing_ = false;
  std::optional<grpc::Status> last_;   // nothing is pushed after it was set
  bool over_ = false;                  // Finish was called, or is about to be
};

}  // namespace sami::som
