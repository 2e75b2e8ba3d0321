#include "tde/control.h"

#include <condition_variable>
#include <mutex>

#include "interfaces/operator/operator.grpc.pb.h"
#include "interfaces/transport/grpc_server.h"
#include "interfaces/transport/loop_call.h"
#include "tde/entity.h"

namespace sami::tde {

namespace management = ::sami::management::v1;

namespace {

void fill(management::MoveStatus& message, const MoveStatus& status) {
  message.set_notification_id(status.notification_id);
  message.set_migration_id(status.migration_id);
  message.set_subject_id(status.subject_id);
  message.set_source_place(status.source_place);
  message.set_destination_place(status.destination_place);
  message.set_state(status.state);
  message.set_instruction(status.instruction);
  message.set_detail(status.detail);
}

// What the loop tells a watcher, until its thread takes it.
class Feed {
 public:
  void push(const MoveStatus& status) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(status);
    filled_.notify_one();
  }
  // Waits a little; nothing if there is nothing.
  std::optional<MoveStatus> take() {
    std::unique_lock lock(mutex_);
    if (!filled_.wait_for(lock, std::chrono::milliseconds(50), [this] { return !queue_.empty(); })) return {};
    MoveStatus first = std::move(queue_.front());
    queue_.pop_front();
    return first;
  }

 private:
  std::mutex mutex_;
  std::condition_variable filled_;
  std::deque<MoveStatus> queue_;
};

}  // namespace

class Control::Implementation final : public management::Topology::Service {
 public:
  Implementation(std::string name, Entity& entity, Executor loop)
      : name_(std::move(name)), entity_(entity), loop_(std::move(loop)) {}

  grpc::Status Status(grpc::ServerContext* context, const management::Empty*, management::StatusReply* reply) override {
    const auto status = transport::call_on_loop(loop_, *context, [this] { return entity_.status(); });
    if (!status) return transport::stopping();
    reply->set_daemon("tde");
    reply->set_name(name_);
    reply->set_version(SAMI_VERSION);
    reply->set_connected(status->connected);
    reply->set_last_error(status->last_error);
    for (const auto& line : status->lines) reply->add_lines(line);
    for (const auto& [counter, value] : status->counters) (*reply->mutable_counters())[counter] = value;
    return grpc::Status::OK;
  }

  grpc::Status Notify(grpc::ServerContext* context, const management::NotifyRequest* request,
                      management::NotifyReply* reply) override {
    Notification notification{.phase = request->phase(),
                              .subject_id = request->subject_id(),
                              .destination_place = request->destination_place(),
                              .notification_id = request->notification_id(),
                              .cause = request->cause(),
                              .force = request->force(),
                              .actor = transport::caller_name(*context)};
    const auto notified =
        transport::call_on_loop(loop_, *context, [this, notification] { return entity_.notify(notification); });
    if (!notified) return transport::stopping();
    if (!*notified) return transport::to_status(notified->error());
    reply->set_notification_id(**notified);
    return grpc::Status::OK;
  }

  grpc::Status WatchMove(grpc::ServerContext* context, const management::WatchMoveRequest* request,
                         grpc::ServerWriter<management::MoveStatus>* writer) override {
    auto feed = std::make_shared<Feed>();
    const auto watching = transport::call_on_loop(loop_, *context, [this, feed, id = request->notification_id()] {
      return entity_.watch(id, [feed](const MoveStatus& status) { feed->push(status); });
    });
    if (!watching) return transport::stopping();
    if (!*watching) return transport::to_status(watching->error());
    while (!context->IsCancelled()) {
      const auto status = feed->take();
      if (!status) continue;
      management::MoveStatus message;
      fill(message, *status);
      if (!writer->Write(message)) break;
      if (status->ended) return grpc::Status::OK;
    }
    return {grpc::StatusCode::CANCELLED, "the caller has gone, or the daemon is stopping"};
  }

  grpc::Status ListMoves(grpc::ServerContext* context, const management::Empty*,
                         management::ListMovesReply* reply) override {
    const auto moves = transport::call_on_loop(loop_, *context, [this] { return entity_.moves(); });
    if (!moves) return transport::stopping();
    for (const auto& status : *moves) fill(*reply->add_moves(), status);
    return grpc::Status::OK;
  }

  grpc::Status ShowTopology(grpc::ServerContext* context, const management::TopologyRequest* request,
                            management::TopologyReply* reply) override {
    const auto outlook = transport::call_on_loop(loop_, *context, [this, wanted = *request] {
      return entity_.outlook(wanted.subject_id(), wanted.destination_place());
    });
    if (!outlook) return transport::stopping();
    if (!*outlook) return transport::to_status(outlook->error());
    for (const auto& line : (*outlook)->lines) reply->add_lines(line);
    for (const auto& transfer : (*outlook)->plan.transfers) *reply->add_transfers() = transfer;
    return grpc::Status::OK;
  }

 private:
  const std::string name_;
  Entity& entity_;
  const Executor loop_;
};

Control::Control(std::string name, Entity& entity, const Loop& loop)
    : implementation_(std::make_unique<Implementation>(std::move(name), entity, loop.executor())) {}
Control::~Control() = default;

grpc::Service& Control::service() { return *implementation_; }

}  // namespace sami::tde
