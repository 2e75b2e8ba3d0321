#include "lab/gate_client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "interfaces/operator/operator.grpc.pb.h"

namespace sami::lab {
namespace {

namespace api = ::sami::management::v1;
using std::chrono::milliseconds;

constexpr milliseconds kCallDeadline{5000};

std::unique_ptr<grpc::ClientContext> context_with(milliseconds deadline) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + deadline);
  return context;
}

std::shared_ptr<grpc::Channel> channel_to(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments);
}

Error error_from(const grpc::Status& status, const std::string& socket) {
  ErrorKind kind = ErrorKind::Failed;
  if (status.error_code() == grpc::UNAVAILABLE || status.error_code() == grpc::DEADLINE_EXCEEDED) {
    kind = ErrorKind::Reconnect;
  } else if (status.error_code() == grpc::INVALID_ARGUMENT || status.error_code() == grpc::NOT_FOUND) {
    kind = ErrorKind::InvalidInput;
  }
  return Error{kind, fmt::format("{}: {}", socket, status.error_message()), 0};
}

// A thread reads the stream into a queue: the synchronous reader has no deadline of its own.
class Watch : public GateWatch {
 public:
  Watch(std::shared_ptr<grpc::Channel> channel, const std::string& socket, const std::string& notification_id)
      : stub_(api::Topology::NewStub(std::move(channel))), socket_(socket) {
    api::WatchMoveRequest request;
    request.set_notification_id(notification_id);
    stream_ = stub_->WatchMove(&context_, request);
    reader_ = std::thread([this] { read(); });
  }
  ~Watch() override {
    context_.TryCancel();
    reader_.join();
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  Result<GateStatus> next(milliseconds deadline) override {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, deadline, [&] { return !queue_.empty() || ended_; });
    if (!queue_.empty()) {
      auto first = queue_.front();
      queue_.pop_front();
      return first;
    }
    if (ended_) return tl::unexpected(reason_);
    return failure(ErrorKind::Retry, fmt::format("{}: nothing new about the move", socket_));
  }

 private:
  void read() {
    api::MoveStatus status;
    while (stream_->Read(&status)) {
      const std::lock_guard lock(mutex_);
      queue_.push_back(
          {status.notification_id(), status.migration_id(), status.state(), status.instruction(), status.detail()});
      arrived_.notify_all();
    }
    const auto end = stream_->Finish();
    const std::lock_guard lock(mutex_);
    reason_ = end.ok() ? Error{ErrorKind::Reconnect, fmt::format("{}: the watch has ended", socket_), 0}
                       : error_from(end, socket_);
    ended_ = true;
    arrived_.notify_all();
  }

  std::unique_ptr<api::Topology::Stub> stub_;
  std::string socket_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<api::MoveStatus>> stream_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<GateStatus> queue_;
  bool ended_ = false;
  Error reason_;
  std::thread reader_;
};

if_m_t::v1::Phase phase_of(GatePhase phase) {
  switch (phase) {
    case GatePhase::Announced:
      return if_m_t::v1::PHASE_ANNOUNCED;
    case GatePhase::Paused:
      return if_m_t::v1::PHASE_PAUSED;
    case GatePhase::Resumed:
      return if_m_t::v1::PHASE_RESUMED;
    case GatePhase::Cancelled:
      return if_m_t::v1::PHASE_CANCELLED;
  }
  return if_m_t::v1::PHASE_UNSPECIFIED;
}

class Client : public GateClient {
 public:
  explicit Client(const std::string& socket)
      : socket_(socket), channel_(channel_to(socket)), stub_(api::Topology::NewStub(channel_)) {}

  Result<std::string> announce(const std::string& vm, const std::string& server, bool force) override {
    api::NotifyRequest request;
    request.set_phase(if_m_t::v1::PHASE_ANNOUNCED);
    request.set_subject_id(vm);
    request.set_destination_place(server);
    request.set_cause(common::v1::CAUSE_VM_MIGRATION);
    request.set_force(force);
    return send(request);
  }

  Result<void> notify(GatePhase phase, const std::string& notification_id) override {
    api::NotifyRequest request;
    request.set_phase(phase_of(phase));
    request.set_notification_id(notification_id);
    auto sent = send(request);
    if (!sent) return tl::unexpected(sent.error());
    return {};
  }

  Result<std::unique_ptr<GateWatch>> watch(const std::string& notification_id) override {
    return std::unique_ptr<GateWatch>(std::make_unique<Watch>(channel_, socket_, notification_id));
  }

 private:
  Result<std::string> send(const api::NotifyRequest& request) {
    api::NotifyReply reply;
    const auto context = context_with(kCallDeadline);
    context->set_wait_for_ready(true);  // a call that fails at once polls no socket: the channel would not come back
    const auto status = stub_->Notify(context.get(), request, &reply);
    if (!status.ok()) return tl::unexpected(error_from(status, socket_));
    return reply.notification_id();
  }

  std::string socket_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<api::Topology::Stub> stub_;
};

template <typename Service>
Result<DaemonStatus> status_of(const std::string& socket, milliseconds deadline) {
  const auto stub = Service::NewStub(channel_to(socket));
  api::StatusReply reply;
  const auto status = stub->Status(context_with(deadline).get(), api::Empty{}, &reply);
  if (!status.ok()) return tl::unexpected(error_from(status, socket));
  return DaemonStatus{reply.name(), reply.connected(), reply.last_error()};
}

}  // namespace

std::unique_ptr<GateClient> make_gate_client(const std::string& socket) { return std::make_unique<Client>(socket); }

Result<DaemonStatus> ask_status(const std::string& program, const std::string& socket, milliseconds deadline) {
  if (program == "sami-soa") return status_of<api::Agent>(socket, deadline);
  if (program == "sami-tde") return status_of<api::Topology>(socket, deadline);
  return status_of<api::Master>(socket, deadline);
}

}  // namespace sami::lab
