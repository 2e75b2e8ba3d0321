#include "som/operator_service.h"

#include "interfaces/operator/operator.grpc.pb.h"
#include "interfaces/transport/grpc_server.h"
#include "som/calls.h"
#include "som/operator.h"

namespace sami::som {

grpc::Status to_status(const Problem& problem) {
  const auto code = [&] {
    switch (problem.kind) {
      case ProblemKind::NotFound: return grpc::StatusCode::NOT_FOUND;
      case ProblemKind::InvalidArgument: return grpc::StatusCode::INVALID_ARGUMENT;
      case ProblemKind::FailedPrecondition: return grpc::StatusCode::FAILED_PRECONDITION;
      case ProblemKind::Unavailable: return grpc::StatusCode::UNAVAILABLE;
      case ProblemKind::DeadlineExceeded: return grpc::StatusCode::DEADLINE_EXCEEDED;
      case ProblemKind::ResourceExhausted: return grpc::StatusCode::RESOURCE_EXHAUSTED;
    }
    return grpc::StatusCode::UNKNOWN;
  }();
  return {code, problem.message};
}

class OperatorService::Implementation final : public api::Master::CallbackService {
  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;

 public:
  Implementation(Operator& operations, Executor loop) : operations_(operations), loop_(std::move(loop)) {}

  void stop() { calls_.stop(); }

  Unary* Status(Context*, const api::Empty*, api::StatusReply* reply) override {
    return now(reply, [this] { return operations_.status(); });
  }
  Unary* ListHosts(Context*, const api::ListHostsRequest*, api::ListHostsReply* reply) override {
    return now(reply, [this] { return operations_.hosts(); });
  }
  Unary* ListVms(Context*, const api::ListVmsRequest*, api::ListVmsReply* reply) override {
    return now(reply, [this] { return operations_.vms(); });
  }
  Unary* ListMigrations(Context*, const api::ListMigrationsRequest* request, api::ListMigrationsReply* reply) override {
    return now(reply, [this, r = *request] { return operations_.migrations(r); });
  }
  Unary* ShowMigration(Context*, const api::MigrationRequest* request, api::Migration* reply) override {
    return now(reply, [this, r = *request] { return operations_.migration(r.id()); });
  }
  Unary* Audit(Context*, const api::AuditRequest* request, api::AuditReply* reply) override {
    return now(reply, [this, r = *request] { return operations_.audit(r); });
  }
  Unary* DrainHost(Context* context, const api::DrainHostRequest* request, api::Empty* reply) override {
    return now(reply, [this, r = *request, actor = actor(context)] { return operations_.drain(r, actor); });
  }
  Unary* AbortMigration(Context* context, const api::MigrationRequest* request, api::Empty* reply) override {
    return now(reply, [this, r = *request, actor = actor(context)] { return operations_.abort(r, actor); });
  }
  Unary* ForceMigration(Context* context, const api::MigrationRequest* request, api::Empty* reply) override {
    return now(reply, [this, r = *request, actor = actor(context)] { return operations_.force(r, actor); });
  }
  Unary* ResolveMigration(Context* context, const api::ResolveRequest* request, api::Empty* reply) override {
    return now(reply, [this, r = *request, actor = actor(context)] { return operations_.resolve(r, actor); });
  }
  Unary* PlanMigration(Context*, const api::PlanRequest* request, api::PlanReply* reply) override {
    return later<api::PlanReply>(reply, [this, r = *request](auto answer) { operations_.plan(r, std::move(answer)); });
  }
  Unary* ShowTopology(Context*, const api::TopologyRequest* request, api::TopologyReply* reply) override {
    return later<api::TopologyReply>(reply,
                                     [this, r = *request](auto answer) { operations_.topology(r, std::move(answer)); });
  }
  Unary* StartMigration(Context* context, const api::PlanRequest* request, api::StartReply* reply) override {
    return later<api::StartReply>(reply, [this, r = *request, actor = actor(context)](auto answer) {
      operations_.start(r, actor, std::move(answer));
    });
  }

  grpc::ServerWriteReactor<api::Migration>* WatchMigration(Context*, const api::MigrationRequest* request) override {
    auto watch = std::make_shared<std::uint64_t>(0);   // touched on the loop only
    auto call = std::make_shared<StreamCall<api::Migration>>(calls_, [this, watch] {
      loop_([this, watch] { operations_.unwatch(*watch); });
    });
    if (calls_.add(call))
      loop_([this, call, watch, id = request->id()] {
        *watch = operations_.watch(id, [call](Answer<api::Migration> migration) {
          if (!migration) return call->finish(to_status(migration.error()));
          const bool last = migration->final();
          call->push(std::move(*migration));
          if (last) call->finish(grpc::Status::OK);
        });
      });
    return call.get();
  }

  grpc::ServerWriteReactor<api::StateReply>* ShowState(Context*, const api::StateRequest* request) override {
    auto call = std::make_shared<StreamCall<api::StateReply>>(calls_, [] {});
    if (calls_.add(call))
      loop_([this, call, r = *request] {
        operations_.state(
            r, [call](api::StateReply part) { call->push(std::move(part)); },
            [call](Answer<void> done) { call->finish(done ? grpc::Status::OK : to_status(done.error())); });
      });
    return call.get();
  }

 private:
  static std::string actor(const Context* context) { return transport::caller_name(*context); }

  template <typename Message, typename Function>
  Unary* now(Message* reply, Function function) {
    return later<Message>(reply, [function = std::move(function)](Reply<Message> answer) { answer(function()); });
  }
  // Runs `ask` on the loop; it answers when it can.
  template <typename Message, typename Function>
  Unary* later(Message* reply, Function ask) {
    auto call = std::make_shared<UnaryCall<Message>>(calls_, reply);
    if (calls_.add(call))
      loop_([call, ask = std::move(ask)] {
        ask(Reply<Message>([call](Answer<Message> answer) { call->answer(std::move(answer)); }));
      });
    return call.get();
  }

  Operator& operations_;
  const Executor loop_;
  Calls calls_;
};

OperatorService::OperatorService(Operator& operations, const Loop& loop)
    : implementation_(std::make_unique<Implementation>(operations, loop.executor())) {}
OperatorService::~OperatorService() = default;

grpc::Service& OperatorService::service() { return *implementation_; }
void OperatorService::stop() { implementation_->stop(); }

}  // namespace sami::som
