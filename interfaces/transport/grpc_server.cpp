#include "interfaces/transport/grpc_server.h"

#include "interfaces/if_m_a/if_m_a_service.grpc.pb.h"
#include "interfaces/if_m_t/if_m_t_service.grpc.pb.h"
#include "interfaces/transport/access.h"
#include "interfaces/transport/grpc_credentials.h"
#include "interfaces/transport/grpc_session.h"
#include "interfaces/transport/listener.h"

namespace sami::transport {
namespace {

constexpr std::chrono::seconds shutdown_grace{2};

using AgentHandlers = SessionHandlers<if_m_a::v1::AgentMessage, if_m_a::v1::MasterMessage>;
using TdeHandlers = SessionHandlers<if_m_t::v1::TdeMessage, if_m_t::v1::MasterMessage>;

// Ends a session that was refused.
template <typename Incoming, typename Outgoing>
class RefusedSession final : public grpc::ServerBidiReactor<Incoming, Outgoing> {
 public:
  explicit RefusedSession(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

// False: there are as many sessions as there may be, or the server stops.
bool admit(ServerState& server, grpc::CallbackServerContext* context) {
  const std::lock_guard lock(server.mutex);
  if (server.stopping || server.calls.size() >= server.limits.sessions) return false;
  server.calls.insert(context);
  return true;
}

template <typename Incoming, typename Outgoing>
grpc::ServerBidiReactor<Incoming, Outgoing>* open_session(const std::shared_ptr<ServerState>& server,
                                                          SessionHandlers<Incoming, Outgoing> handlers,
                                                          const char* method, grpc::CallbackServerContext* context) {
  const auto refuse = [&](grpc::StatusCode code, const std::string& reason) {
    server->executor([server, peer = context->peer(), reason] {
      if (server->alive) server->handlers.on_refused(peer, reason);
    });
    return new RefusedSession<Incoming, Outgoing>(grpc::Status(code, reason));
  };
  const auto peer = peer_identity(*context->auth_context());
  if (!peer) return refuse(grpc::StatusCode::PERMISSION_DENIED, peer.error().message);
  if (const auto access = check_access(method, *peer, server->domain); !access)
    return refuse(grpc::StatusCode::PERMISSION_DENIED, access.error().message);
  if (!admit(*server, context)) {
    return refuse(grpc::StatusCode::RESOURCE_EXHAUSTED,
                  fmt::format("{}: {} sessions are open, at most that many", peer->uri(), server->limits.sessions));
  }
  const auto session = std::make_shared<GrpcSession<Incoming, Outgoing>>(server, handlers, context, *peer);
  session->begin();
  return session.get();
}

class AgentService final : public if_m_a::v1::StateOrchestration::CallbackService {
 public:
  explicit AgentService(std::shared_ptr<ServerState> server) : server_(std::move(server)) {}
  grpc::ServerBidiReactor<if_m_a::v1::AgentMessage, if_m_a::v1::MasterMessage>* Session(
      grpc::CallbackServerContext* context) override {
    const MasterHandlers& handlers = server_->handlers;
    return open_session(server_,
                        AgentHandlers{&handlers.on_agent_open, &handlers.on_agent_message, &handlers.on_agent_closed},
                        "/sami.if_m_a.v1.StateOrchestration/Session", context);
  }

 private:
  const std::shared_ptr<ServerState> server_;
};

class TdeService final : public if_m_t::v1::TopologyDiscovery::CallbackService {
 public:
  explicit TdeService(std::shared_ptr<ServerState> server) : server_(std::move(server)) {}
  grpc::ServerBidiReactor<if_m_t::v1::TdeMessage, if_m_t::v1::MasterMessage>* Session(
      grpc::CallbackServerContext* context) override {
    const MasterHandlers& handlers = server_->handlers;
    return open_session(server_, TdeHandlers{&handlers.on_tde_open, &handlers.on_tde_message, &handlers.on_tde_closed},
                        "/sami.if_m_t.v1.TopologyDiscovery/Session", context);
  }

 private:
  const std::shared_ptr<ServerState> server_;
};

void set_limits(grpc::ServerBuilder& builder, const Limits& limits) {
  const int keepalive = static_cast<int>(limits.keepalive.count());
  const int first_message = static_cast<int>(limits.first_message.count());
  builder.SetMaxReceiveMessageSize(static_cast<int>(limits.message_bytes));
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, keepalive / 2);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, first_message);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, first_message);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 64);   // of one connection
}

class GrpcServer final : public Server {
 public:
  // `own` are destroyed after the server.
  GrpcServer(std::unique_ptr<Listener> listener, std::shared_ptr<ServerState> state,
             std::vector<std::unique_ptr<grpc::Service>> own)
      : listener_(std::move(listener)), state_(std::move(state)), own_(std::move(own)) {}

  ~GrpcServer() override {
    {
      const std::lock_guard lock(state_->mutex);
      state_->stopping = true;
      state_->alive = false;
      for (grpc::CallbackServerContext* call : state_->calls) call->TryCancel();
    }
    listener_.reset();
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + shutdown_grace);
    if (server_) server_->Wait();
  }

  Result<void> start(grpc::ServerBuilder& builder, const std::shared_ptr<grpc::ServerCredentials>& credentials,
                     const std::vector<grpc::Service*>& services) {
    for (const auto& service : own_) builder.RegisterService(service.get());
    for (grpc::Service* service : services) builder.RegisterService(service);
    acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
    server_ = builder.BuildAndStart();
    if (!server_) return failure(ErrorKind::Failed, "gRPC did not start");
    listener_->start(
        [this](int listener, int connection) {
          grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
          parameters.listener_fd = listener;
          parameters.fd = connection;
          acceptor_->HandleNewConnection(&parameters);
        },
        [server = state_] {
          if (!server->executor) return;  // a local socket: nobody is told
          server->executor([server] {
            if (server->alive) server->handlers.on_refused("a connection", "descriptors have run out");
          });
        });
    return {};
  }

  int port() const override { return listener_->port(); }

 private:
  std::unique_ptr<Listener> listener_;
  const std::shared_ptr<ServerState> state_;
  const std::vector<std::unique_ptr<grpc::Service>> own_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

Result<std::unique_ptr<Server>> start_server(const ServerConfig& config, MasterHandlers handlers,
                                             const std::vector<grpc::Service*>& services, Loop& loop) {
  const auto state = std::make_shared<ServerState>();
  state->limits = config.limits;
  state->handlers = std::move(handlers);
  state->loop = &loop;
  state->executor = loop.executor();
  const auto refused = [weak = std::weak_ptr(state), executor = loop.executor()](std::string peer, std::string reason) {
    executor([weak, peer = std::move(peer), reason = std::move(reason)] {
      if (const auto server = weak.lock(); server && server->alive) server->handlers.on_refused(peer, reason);
    });
  };
  const auto credentials = server_credentials(config.credentials, state->domain, refused);
  if (!credentials) return tl::unexpected(credentials.error());
  auto listener = Listener::on_port(config.listen);
  if (!listener) return tl::unexpected(listener.error());
  std::vector<std::unique_ptr<grpc::Service>> own;
  own.push_back(std::make_unique<AgentService>(state));
  own.push_back(std::make_unique<TdeService>(state));
  auto server = std::make_unique<GrpcServer>(std::move(*listener), state, std::move(own));
  grpc::ServerBuilder builder;
  set_limits(builder, config.limits);
  if (auto started = server->start(builder, *credentials, services); !started) return tl::unexpected(started.error());
  return server;
}

Result<std::unique_ptr<Server>> start_local_server(const std::string& path,
                                                   const std::vector<grpc::Service*>& services) {
  auto listener = Listener::on_socket(path);
  if (!listener) return tl::unexpected(listener.error());
  auto server = std::make_unique<GrpcServer>(std::move(*listener), std::make_shared<ServerState>(),
                                             std::vector<std::unique_ptr<grpc::Service>>());
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(static_cast<int>(Limits{}.message_bytes));
  if (auto started = server->start(builder, grpc::InsecureServerCredentials(), services); !started)
    return tl::unexpected(started.error());
  return server;
}

std::string caller_name(const grpc::ServerContextBase& context) {
  const auto authentication = context.auth_context();
  if (authentication && authentication->IsPeerAuthenticated()) {
    const auto identity = peer_identity(*authentication);
    return identity ? identity->role + "/" + identity->name : "unknown";
  }
  return "local";
}

}  // namespace sami::transport
