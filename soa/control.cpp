#include "soa/control.h"

#include "interfaces/operator/operator.grpc.pb.h"
#include "interfaces/transport/loop_call.h"
#include "soa/agent.h"

namespace sami::soa {

namespace management = ::sami::management::v1;

namespace {

constexpr std::size_t kReplyBytes = 192 * 1024;  // of records; one record may come on top

using FoundState = Result<std::vector<Agent::ClassState>>;

// False when the caller is gone.
bool write_class(const Agent::ClassState& state, grpc::ServerWriter<management::StateReply>& writer) {
  management::StateReply reply;
  std::size_t bytes = 0;
  const auto flush = [&] {
    reply.set_state_class(state.state_class);
    const bool written = writer.Write(reply);
    reply.Clear();
    bytes = 0;
    return written;
  };
  for (const auto& record : state.records) {
    *reply.add_records() = record;
    bytes += record.ByteSizeLong();
    if (bytes >= kReplyBytes && !flush()) return false;
  }
  return bytes == 0 || flush();
}

}  // namespace

class Control::Implementation final : public management::Agent::Service {
 public:
  Implementation(std::string name, Agent& agent, Executor loop)
      : name_(std::move(name)), agent_(agent), loop_(std::move(loop)) {}

  grpc::Status Status(grpc::ServerContext* context, const management::Empty*, management::StatusReply* reply) override {
    const auto status = transport::call_on_loop(loop_, *context, [this] { return agent_.status(); });
    if (!status) return transport::stopping();
    reply->set_daemon("soa");
    reply->set_name(name_);
    reply->set_version(SAMI_VERSION);
    reply->set_connected(status->connected);
    reply->set_last_error(status->last_error);
    for (const auto& line : status->lines) reply->add_lines(line);
    for (const auto& [counter, value] : status->counters) (*reply->mutable_counters())[counter] = value;
    return grpc::Status::OK;
  }

  grpc::Status ShowState(grpc::ServerContext* context, const management::StateRequest* request,
                         grpc::ServerWriter<management::StateReply>* writer) override {
    const auto found = transport::ask_loop<FoundState>(
        loop_, *context, [this, wanted = *request](const std::function<void(FoundState)>& done) {
          const auto subject = agent_.find_subject(wanted.subject_id());
          if (!subject) return done(tl::unexpected(subject.error()));
          agent_.read_state(*subject, wanted.context(), wanted.state_class(), done);
        });
    if (!found) return transport::stopping();
    if (!*found) return transport::to_status(found->error());
    for (const auto& state : **found) {
      if (!write_class(state, *writer)) return {grpc::StatusCode::CANCELLED, "the caller has gone"};
    }
    return grpc::Status::OK;
  }

 private:
  const std::string name_;
  Agent& agent_;
  const Executor loop_;
};

Control::Control(std::string name, Agent& agent, const Loop& loop)
    : implementation_(std::make_unique<Implementation>(std::move(name), agent, loop.executor())) {}
Control::~Control() = default;

grpc::Service& Control::service() { return *implementation_; }

}  // namespace sami::soa
