// The SOM's end of one gRPC session. Private to grpc_server.cpp.
//
// gRPC's callbacks change only what the mutex guards and post to the loop; one message at a time is handed to the loop
// and the next is read when that one was handled, so that a slow loop holds the peer back instead of filling memory.
#pragma once

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <mutex>
#include <optional>
#include <set>

#include "interfaces/transport/transport.h"

namespace sami::transport {

// What the sessions of a server share. `alive` is touched on the loop only.
struct ServerState {
  Limits limits;
  std::string domain;
  MasterHandlers handlers;
  Loop* loop = nullptr;          // valid while alive
  Executor executor;
  bool alive = true;

  std::mutex mutex;
  std::set<grpc::CallbackServerContext*> calls;   // sessions that are under way
  bool stopping = false;
};

template <typename Incoming, typename Outgoing>
struct SessionHandlers {
  using Open = std::function<void(std::shared_ptr<Session<Outgoing>>)>;
  using Message = std::function<void(const std::shared_ptr<Session<Outgoing>>&, Incoming)>;
  using Closed = std::function<void(const std::shared_ptr<Session<Outgoing>>&, std::string)>;
  const Open* open;              // inside ServerState::handlers
  const Message* message;
  const Closed* closed;
};

template <typename Incoming, typename Outgoing>
class GrpcSession final : public Session<Outgoing>,
                          public grpc::ServerBidiReactor<Incoming, Outgoing>,
                          public std::enable_shared_from_this<GrpcSession<Incoming, Outgoing>> {
 public:
  using Handlers = SessionHandlers<Incoming, Outgoing>;

  GrpcSession(std::shared_ptr<ServerState> server, Handlers handlers, grpc::CallbackServerContext* context,
              Identity peer)
      : server_(std::move(server)), handlers_(handlers), peer_(std::move(peer)), context_(context) {}

  // Lives until gRPC is done with it, and as long as somebody holds it.
  void begin() {
    self_ = this->shared_from_this();
    context_->AddInitialMetadata("sami-session", "open");
    {
      const std::lock_guard lock(mutex_);
      this->StartSendInitialMetadata();
    }
    on_loop([self = self_] {
      (*self->handlers_.open)(self);
      self->deadline_ =
          self->server_->loop->call_after(self->server_->limits.first_message, [weak = std::weak_ptr(self)] {
            if (const auto session = weak.lock()) session->nothing_came();
          });
      self->read_next();
    });
  }

  void send(const Outgoing& message) override {
    const std::size_t size = message.ByteSizeLong();
    if (size > server_->limits.message_bytes) {
      return close(
          fmt::format("a message of {} octets was to be sent: at most {}", size, server_->limits.message_bytes));
    }
    const std::lock_guard lock(mutex_);
    if (closing_) return;
    if (queued_bytes_ + size > server_->limits.queued_bytes)
      return abort(fmt::format("the peer does not read: {} octets are queued", queued_bytes_));
    queued_bytes_ += size;
    queue_.push_back(message);
    if (!writing_) write_next();
  }

  void close(const std::string& reason) override {
    {
      const std::lock_guard lock(mutex_);
      if (closing_) return;
      closing_ = true;
      reason_ = reason;
      if (!writing_) finish();
    }
    // A peer that does not read what is queued is not waited for.
    on_loop([self = this->shared_from_this()] {
      self->patience_ = self->server_->loop->call_after(self->server_->limits.keepalive, [weak = std::weak_ptr(self)] {
        if (const auto session = weak.lock()) session->give_up();
      });
    });
  }

  const Identity& peer() const override { return peer_; }

  std::size_t queued_bytes() const override {
    const std::lock_guard lock(mutex_);
    return queued_bytes_;
  }

  // ---- gRPC's threads
  void OnSendInitialMetadataDone(bool) override {}

  void OnReadDone(bool ok) override {
    if (ok) {
      return on_loop([self = this->shared_from_this()] {
        self->cancel_deadline();
        (*self->handlers_.message)(self, std::move(self->incoming_));
        self->read_next();
      });
    }
    const std::lock_guard lock(mutex_);
    peer_gone("the peer closed the session");
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    queued_bytes_ -= queue_.front().ByteSizeLong();
    queue_.pop_front();
    if (!ok) return peer_gone("the connection was lost");
    if (!queue_.empty()) write_next();
    else if (closing_) finish();
  }

  void OnCancel() override {
    const std::lock_guard lock(mutex_);
    peer_gone("the connection was lost, or the peer broke off");
  }

  void OnDone() override {
    const auto self = std::move(self_);  // to the end of this call, even if the loop is gone
    {
      const std::scoped_lock lock(server_->mutex, mutex_);
      server_->calls.erase(context_);
      context_ = nullptr;
    }
    on_loop([self] {
      self->cancel_deadline();
      self->server_->loop->cancel(self->patience_);
      (*self->handlers_.closed)(self, self->reason());
    });
  }

 private:
  template <typename Task>
  void on_loop(Task task) {
    server_->executor([server = server_, task = std::move(task)]() mutable {
      if (server->alive) task();
    });
  }

  std::string reason() const {
    const std::lock_guard lock(mutex_);
    return reason_;
  }

  // ---- the loop
  void cancel_deadline() {
    server_->loop->cancel(deadline_);
    deadline_ = 0;
  }

  void nothing_came() {
    close(fmt::format("no message came within {} ms: expected Authorize", server_->limits.first_message.count()));
  }

  void give_up() {
    const std::lock_guard lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }

  void read_next() {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    incoming_ = Incoming();
    this->StartRead(&incoming_);
  }

  // ---- with the mutex held
  void write_next() {
    writing_ = true;
    this->StartWrite(&queue_.front());
  }

  void abort(std::string reason) {
    closing_ = true;
    reason_ = std::move(reason);
    if (context_ != nullptr) context_->TryCancel();
    if (!writing_) finish();
  }

  void peer_gone(const char* reason) {
    if (!closing_) reason_ = reason;
    closing_ = true;
    if (!writing_) finish();
    else if (context_ != nullptr) context_->TryCancel();  // the write would wait for a peer that reads no more
  }

  void finish() {
    if (finished_) return;
    finished_ = true;
    this->Finish(grpc::Status(grpc::StatusCode::ABORTED, reason_));
  }

  const std::shared_ptr<ServerState> server_;
  const Handlers handlers_;
  const Identity peer_;
  Loop::TimerId deadline_ = 0;                     // loop
  Loop::TimerId patience_ = 0;                     // loop
  Incoming incoming_;                              // gRPC while a read is under way, else the loop
  mutable std::mutex mutex_;
  grpc::CallbackServerContext* context_;           // null: gRPC is done
  std::deque<Outgoing> queue_;                     // the first one is being written if writing_
  std::size_t queued_bytes_ = 0;
  bool writing_ = false;
  bool closing_ = false;                           // nothing is queued any more
  bool finished_ = false;                          // no operation may be started any more
  std::string reason_ = "";
  std::shared_ptr<GrpcSession> self_;
};

}  // namespace sami::transport
