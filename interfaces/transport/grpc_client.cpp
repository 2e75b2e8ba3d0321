#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>

#include "interfaces/if_m_a/if_m_a_service.grpc.pb.h"
#include "interfaces/if_m_t/if_m_t_service.grpc.pb.h"
#include "interfaces/transport/backoff.h"
#include "interfaces/transport/channel.h"
#include "interfaces/transport/grpc_credentials.h"
#include "runtime/config.h"

namespace sami::transport {
namespace {

// Set once, on gRPC's thread; waited for on the loop's.
class Latch {
 public:
  void set() {
    const std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

// One attempt, from dialling to its end. It owns its channel. Made and destroyed on the loop, after OnDone: a gRPC
// callback must not destroy the last channel.
template <typename Service, typename Outgoing, typename Incoming>
class Call final : public grpc::ClientBidiReactor<Outgoing, Incoming> {
 public:
  // What it tells its client, on the loop, while `alive`.
  struct Events {
    std::function<void()> connected;
    std::function<void(Incoming)> message;
    std::function<void(const grpc::Status&, const std::string& own_reason)> ended;
  };

  Call(std::shared_ptr<grpc::Channel> channel, Limits limits, Executor executor, Events events)
      : channel_(std::move(channel)),
        stub_(Service::NewStub(channel_)),
        limits_(limits),
        executor_(std::move(executor)),
        events_(std::make_shared<Events>(std::move(events))) {
    stub_->async()->Session(&context_, this);
    this->AddHold();  // operations are started from outside of callbacks
    this->StartCall();
  }

  ~Call() override {
    *alive_ = false;
    cancel("");
    done_->wait();
  }

  void send(const Outgoing& message) {
    const std::size_t size = message.ByteSizeLong();
    if (size > limits_.message_bytes)
      return cancel(fmt::format("a message of {} octets was to be sent: at most {}", size, limits_.message_bytes));
    {
      const std::lock_guard lock(mutex_);
      if (ended_) return;
      if (queued_bytes_ + size <= limits_.queued_bytes) {
        queued_bytes_ += size;
        queue_.push_back(message);
        if (queue_.size() == 1) this->StartWrite(&queue_.front());
        return;
      }
    }
    cancel(fmt::format("the master does not read: more than {} octets are queued", limits_.queued_bytes));
  }

  void cancel(const std::string& reason) {
    {
      const std::lock_guard lock(mutex_);
      if (own_reason_.empty()) own_reason_ = reason;
      end();
    }
    context_.TryCancel();
  }

  // ---- gRPC's threads
  void OnReadInitialMetadataDone(bool ok) override {
    const bool open = ok && context_.GetServerInitialMetadata().count("sami-session") != 0;
    if (!open) {
      const std::lock_guard lock(mutex_);
      return end();
    }
    on_loop([this] {
      events_->connected();
      read_next();
    });
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      return on_loop([this, alive = alive_] {
        events_->message(std::move(incoming_));
        if (*alive) read_next();  // the handler may have ended us
      });
    }
    const std::lock_guard lock(mutex_);
    end();
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    queued_bytes_ -= queue_.front().ByteSizeLong();
    queue_.pop_front();
    if (!ok) return end();
    if (!queue_.empty() && !ended_) this->StartWrite(&queue_.front());
  }

  void OnDone(const grpc::Status& status) override {
    on_loop([this, status] { events_->ended(status, own_reason_); });
    const auto done = done_;  // `this` may go as soon as it is set
    done->set();
  }

 private:
  template <typename Task>
  void on_loop(Task task) {
    executor_([alive = alive_, events = events_, task = std::move(task)]() mutable {
      if (*alive) task();
    });
  }

  void read_next() {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    incoming_ = Incoming();
    this->StartRead(&incoming_);
  }

  // With the mutex held: no operation is started any more.
  void end() {
    if (ended_) return;
    ended_ = true;
    this->RemoveHold();
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<typename Service::Stub> stub_;
  const Limits limits_;
  const Executor executor_;
  const std::shared_ptr<Events> events_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // touched on the loop only
  const std::shared_ptr<Latch> done_ = std::make_shared<Latch>();
  grpc::ClientContext context_;
  Incoming incoming_;               // gRPC while a read is under way, else the loop
  std::mutex mutex_;
  std::deque<Outgoing> queue_;      // the first one is being written
  std::size_t queued_bytes_ = 0;
  bool ended_ = false;
  std::string own_reason_;          // why this end broke off; empty: it did not
};

template <typename Service, typename Outgoing, typename Incoming>
class GrpcClient final : public Client<Outgoing, Incoming> {
 public:
  using Handlers = typename Client<Outgoing, Incoming>::Handlers;

  GrpcClient(ClientConfig config, Loop& loop) : config_(std::move(config)), loop_(loop) {}
  ~GrpcClient() override { loop_.cancel(timer_); }

  void start(Handlers handlers) override {
    handlers_ = std::move(handlers);
    timer_ = loop_.call_after(Duration::zero(), [this] { dial(); });
  }

  void send(const Outgoing& message) override {
    if (call_ && connected_at_) call_->send(message);
  }

  void reconnect(const std::string& reason) override {
    if (call_) call_->cancel(reason);
  }

 private:
  using Attempt = Call<Service, Outgoing, Incoming>;

  void dial() {
    const auto credentials = channel_credentials(config_.credentials, config_.master_name);
    if (!credentials) return again(credentials.error().message);
    call_ = std::make_unique<Attempt>(
        grpc::CreateCustomChannel(config_.target, *credentials, channel_arguments(config_.limits)), config_.limits,
        loop_.executor(),
        typename Attempt::Events{[this] { connected(); },
                                 [this](Incoming message) { handlers_.on_message(std::move(message)); },
                                 [this](const grpc::Status& status, const std::string& own_reason) {
                                   ended(own_reason.empty() ? explain(status, config_.target) : own_reason);
                                 }});
    timer_ = loop_.call_after(config_.limits.first_message, [this] {
      call_->cancel(
          fmt::format("{} gave no answer within {} ms", config_.target, config_.limits.first_message.count()));
    });
  }

  void connected() {
    loop_.cancel(timer_);
    connected_at_ = loop_.now();
    handlers_.on_connected();
  }

  void ended(const std::string& reason) {
    loop_.cancel(timer_);
    if (connected_at_ && loop_.now() - *connected_at_ >= Backoff::steady) backoff_.reset();
    connected_at_.reset();
    again(reason);
  }

  // The call is destroyed later: one of its own events may have brought us here.
  void again(const std::string& reason) {
    timer_ = loop_.call_after(backoff_.next(random_), [this] {
      call_.reset();
      dial();
    });
    handlers_.on_disconnected(reason);
  }

  const ClientConfig config_;
  Loop& loop_;
  Handlers handlers_;
  std::unique_ptr<Attempt> call_;
  std::optional<Instant> connected_at_;
  Loop::TimerId timer_ = 0;         // next attempt, or the patience with this one
  Backoff backoff_;
  std::mt19937 random_{std::random_device{}()};
};

template <typename Made, typename Base>
Result<std::unique_ptr<Base>> make_client(ClientConfig config, Loop& loop) {
  if (auto good = check_endpoint(config.target, false); !good) return tl::unexpected(good.error());
  if (auto good = channel_credentials(config.credentials, config.master_name); !good)
    return tl::unexpected(good.error());
  return std::make_unique<Made>(std::move(config), loop);
}

}  // namespace

Result<std::unique_ptr<AgentClient>> make_agent_client(ClientConfig config, Loop& loop) {
  using Made = GrpcClient<if_m_a::v1::StateOrchestration, if_m_a::v1::AgentMessage, if_m_a::v1::MasterMessage>;
  return make_client<Made, AgentClient>(std::move(config), loop);
}

Result<std::unique_ptr<TdeClient>> make_tde_client(ClientConfig config, Loop& loop) {
  using Made = GrpcClient<if_m_t::v1::TopologyDiscovery, if_m_t::v1::TdeMessage, if_m_t::v1::MasterMessage>;
  return make_client<Made, TdeClient>(std::move(config), loop);
}

}  // namespace sami::transport
