#include "interfaces/transport/memory_transport.h"

#include <fmt/format.h>

#include <atomic>
#include <random>
#include <set>

#include "interfaces/transport/access.h"
#include "interfaces/transport/backoff.h"

namespace sami::transport {
namespace {

std::string too_large(std::size_t size, std::size_t limit) {
  return fmt::format("a message of {} octets was to be sent: at most {}", size, limit);
}
std::string too_large_for_peer(std::size_t size, std::size_t limit) {
  return fmt::format("received a message of {} octets: at most {}", size, limit);
}
std::string does_not_read(std::size_t queued) {
  return fmt::format("the peer does not read: {} octets are queued", queued);
}

template <typename Incoming, typename Outgoing>
struct RoleHandlers;
template <>
struct RoleHandlers<if_m_a::v1::AgentMessage, if_m_a::v1::MasterMessage> {
  static constexpr const char* method = "/sami.if_m_a.v1.StateOrchestration/Session";
  static const auto& open(const MasterHandlers& handlers) { return handlers.on_agent_open; }
  static const auto& message(const MasterHandlers& handlers) { return handlers.on_agent_message; }
  static const auto& closed(const MasterHandlers& handlers) { return handlers.on_agent_closed; }
};
template <>
struct RoleHandlers<if_m_t::v1::TdeMessage, if_m_t::v1::MasterMessage> {
  static constexpr const char* method = "/sami.if_m_t.v1.TopologyDiscovery/Session";
  static const auto& open(const MasterHandlers& handlers) { return handlers.on_tde_open; }
  static const auto& message(const MasterHandlers& handlers) { return handlers.on_tde_message; }
  static const auto& closed(const MasterHandlers& handlers) { return handlers.on_tde_closed; }
};

struct MasterState {
  Identity identity;
  MasterHandlers handlers;
  Limits limits;
  std::size_t sessions = 0;
  bool alive = true;
};

// A client, as the network sees it.
struct Link {
  const std::string client_name;
  const MasterState* server;
  const std::function<void(const std::string& reason)> break_off;
};

}  // namespace

// Everything happens on the loop; a message takes one turn of it. What has not had its turn counts as queued.
struct MemoryNetwork::Implementation {
  explicit Implementation(Loop& event_loop) : loop(event_loop) {}

  template <typename Which>
  void break_links(const std::string& reason, Which which) {
    const auto present = links;  // breaking one takes it off the list
    for (const auto& link : present)
      if (which(*link)) link->break_off(reason);
  }

  Loop& loop;
  std::map<std::string, std::shared_ptr<MasterState>> servers;
  std::set<std::string> cut;
  std::set<std::shared_ptr<Link>> links;
};

namespace {

// The SOM's end.
template <typename Incoming, typename Outgoing>
class MemorySession final : public Session<Outgoing>,
                            public std::enable_shared_from_this<MemorySession<Incoming, Outgoing>> {
 public:
  using Role = RoleHandlers<Incoming, Outgoing>;
  using ClientMessage = std::function<void(const std::string& bytes)>;
  using ClientClosed = std::function<void(const std::string& reason)>;

  MemorySession(std::shared_ptr<MasterState> server, Loop& loop, Identity peer, ClientMessage to_client,
                ClientClosed closed)
      : server_(std::move(server)),
        loop_(loop),
        executor_(loop.executor()),
        peer_(std::move(peer)),
        to_client_(std::move(to_client)),
        client_closed_(std::move(closed)) {}

  void begin() {
    ++server_->sessions;
    Role::open(server_->handlers)(this->shared_from_this());
    deadline_ = loop_.call_after(server_->limits.first_message, [weak = this->weak_from_this()] {
      if (const auto self = weak.lock())
        self->end(fmt::format("no message came within {} ms: expected Authorize",
                              self->server_->limits.first_message.count()));
    });
  }

  // Any thread: it takes its turn on the loop.
  void send(const Outgoing& message) override {
    executor_([self = this->shared_from_this(), bytes = message.SerializeAsString()] { self->send_bytes(bytes); });
  }
  void close(const std::string& reason) override {
    executor_([self = this->shared_from_this(), reason] { self->end(reason); });
  }
  const Identity& peer() const override { return peer_; }
  std::size_t queued_bytes() const override { return queued_; }

  // ---- the loop
  void receive(const std::string& bytes) {
    if (!open_ || !server_->alive) return;
    if (bytes.size() > server_->limits.message_bytes)
      return end(too_large_for_peer(bytes.size(), server_->limits.message_bytes));
    loop_.cancel(deadline_);
    Incoming message;
    message.ParseFromString(bytes);
    Role::message(server_->handlers)(this->shared_from_this(), std::move(message));
  }

  // Both ends hear of it; this one in the next turn.
  void end(const std::string& reason) {
    if (!open_) return;
    open_ = false;
    loop_.cancel(deadline_);
    --server_->sessions;
    executor_([self = this->shared_from_this(), reason] {
      self->client_closed_(reason);
      if (self->server_->alive) Role::closed(self->server_->handlers)(self, reason);
    });
  }

 private:
  void send_bytes(const std::string& bytes) {
    if (!open_) return;
    if (bytes.size() > server_->limits.message_bytes)
      return end(too_large(bytes.size(), server_->limits.message_bytes));
    if (queued_ + bytes.size() > server_->limits.queued_bytes) return end(does_not_read(queued_));
    queued_ += bytes.size();
    executor_([self = this->shared_from_this(), bytes] {
      self->queued_ -= bytes.size();
      self->to_client_(bytes);
    });
  }

  const std::shared_ptr<MasterState> server_;
  Loop& loop_;
  const Executor executor_;
  const Identity peer_;
  const ClientMessage to_client_;
  const ClientClosed client_closed_;
  Loop::TimerId deadline_ = 0;
  std::atomic<std::size_t> queued_ = 0;
  bool open_ = true;
};

template <typename Outgoing, typename Incoming>
class MemoryClient final : public Client<Outgoing, Incoming> {
 public:
  using Handlers = typename Client<Outgoing, Incoming>::Handlers;
  using MasterEnd = MemorySession<Outgoing, Incoming>;

  MemoryClient(std::shared_ptr<MemoryNetwork::Implementation> network, std::string target, Identity identity,
               std::string master_name, Limits limits)
      : network_(std::move(network)), target_(std::move(target)), identity_(std::move(identity)),
        master_name_(std::move(master_name)), limits_(limits) {}

  ~MemoryClient() override {
    *alive_ = false;
    network_->loop.cancel(timer_);
    if (session_) session_->end("the peer closed the session");
    network_->links.erase(link_);
  }

  void start(Handlers handlers) override {
    handlers_ = std::move(handlers);
    timer_ = network_->loop.call_after(Duration::zero(), [this] { dial(); });
  }

  void send(const Outgoing& message) override {
    if (!session_) return;
    std::string bytes = message.SerializeAsString();
    if (bytes.size() > limits_.message_bytes) return session_->end(too_large(bytes.size(), limits_.message_bytes));
    if (*queued_ + bytes.size() > limits_.queued_bytes) return session_->end(does_not_read(*queued_));
    *queued_ += bytes.size();
    network_->loop.post([session = session_, queued = queued_, bytes = std::move(bytes)] {
      *queued -= bytes.size();
      session->receive(bytes);
    });
  }

  void reconnect(const std::string& reason) override {
    if (session_) session_->end(reason);
  }

 private:
  void dial() {
    const auto found = network_->servers.find(target_);
    const bool reachable = found != network_->servers.end() && network_->cut.count(identity_.name) == 0 &&
                           network_->cut.count(found->second->identity.name) == 0;
    if (!reachable) return again(fmt::format("nobody listens on {}: does the daemon run?", target_));
    const std::shared_ptr<MasterState> server = found->second;
    const Identity expected{identity_.domain, "som", master_name_};
    if (!(server->identity == expected)) {
      return again(fmt::format("{} is the wrong server: the server is {}: expected {}", target_, server->identity.uri(),
                               expected.uri()));
    }
    auto access = check_access(RoleHandlers<Outgoing, Incoming>::method, identity_, server->identity.domain);
    if (access && server->sessions >= server->limits.sessions) {
      access = failure(ErrorKind::InvalidInput, fmt::format("{}: {} sessions are open, at most that many",
                                                            identity_.uri(), server->limits.sessions));
    }
    if (!access) {
      server->handlers.on_refused(identity_.uri(), access.error().message);
      return again(access.error().message);
    }
    open(server);
  }

  void open(const std::shared_ptr<MasterState>& server) {
    session_ = std::make_shared<MasterEnd>(
        server, network_->loop, identity_,
        [this, alive = alive_](const std::string& bytes) {
          if (*alive) receive(bytes);
        },
        [this, alive = alive_](const std::string& reason) {
          if (*alive) ended(reason);
        });
    link_ = std::make_shared<Link>(Link{identity_.name, server.get(),
                                        [session = session_](const std::string& reason) { session->end(reason); }});
    network_->links.insert(link_);
    queued_ = std::make_shared<std::size_t>(0);
    connected_at_ = network_->loop.now();
    session_->begin();
    handlers_.on_connected();
  }

  void receive(const std::string& bytes) {
    if (!session_) return;
    if (bytes.size() > limits_.message_bytes)
      return session_->end(too_large_for_peer(bytes.size(), limits_.message_bytes));
    Incoming message;
    message.ParseFromString(bytes);
    handlers_.on_message(std::move(message));
  }

  void ended(const std::string& reason) {
    session_.reset();
    network_->links.erase(link_);
    if (network_->loop.now() - connected_at_ >= Backoff::steady) backoff_.reset();
    again(reason);
  }

  void again(const std::string& reason) {
    timer_ = network_->loop.call_after(backoff_.next(random_), [this] { dial(); });
    handlers_.on_disconnected(reason);
  }

  const std::shared_ptr<MemoryNetwork::Implementation> network_;
  const std::string target_;
  const Identity identity_;
  const std::string master_name_;
  const Limits limits_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Handlers handlers_;
  std::shared_ptr<MasterEnd> session_;
  std::shared_ptr<Link> link_;
  std::shared_ptr<std::size_t> queued_;
  Instant connected_at_;
  Loop::TimerId timer_ = 0;
  Backoff backoff_;
  std::mt19937 random_{1};
};

class MemoryServer final : public MemoryNetwork::Server {
 public:
  MemoryServer(std::shared_ptr<MemoryNetwork::Implementation> network, std::string target,
               std::shared_ptr<MasterState> state)
      : network_(std::move(network)), target_(std::move(target)), state_(std::move(state)) {}
  ~MemoryServer() override {
    state_->alive = false;
    network_->servers.erase(target_);
    network_->break_links("the master went away", [this](const Link& link) { return link.server == state_.get(); });
  }

 private:
  const std::shared_ptr<MemoryNetwork::Implementation> network_;
  const std::string target_;
  const std::shared_ptr<MasterState> state_;
};

}  // namespace

MemoryNetwork::MemoryNetwork(Loop& loop) : implementation_(std::make_shared<Implementation>(loop)) {}
MemoryNetwork::~MemoryNetwork() = default;

Result<std::unique_ptr<MemoryNetwork::Server>> MemoryNetwork::serve(const std::string& target, Identity identity,
                                                                    MasterHandlers handlers, Limits limits) {
  const auto state =
      std::make_shared<MasterState>(MasterState{std::move(identity), std::move(handlers), limits, 0, true});
  if (!implementation_->servers.emplace(target, state).second)
    return failure(ErrorKind::InvalidInput, target + " is taken: expected another target");
  return std::make_unique<MemoryServer>(implementation_, target, state);
}

std::unique_ptr<AgentClient> MemoryNetwork::make_agent_client(const std::string& target, Identity identity,
                                                              std::string master_name, Limits limits) {
  return std::make_unique<MemoryClient<if_m_a::v1::AgentMessage, if_m_a::v1::MasterMessage>>(
      implementation_, target, std::move(identity), std::move(master_name), limits);
}

std::unique_ptr<TdeClient> MemoryNetwork::make_tde_client(const std::string& target, Identity identity,
                                                          std::string master_name, Limits limits) {
  return std::make_unique<MemoryClient<if_m_t::v1::TdeMessage, if_m_t::v1::MasterMessage>>(
      implementation_, target, std::move(identity), std::move(master_name), limits);
}

void MemoryNetwork::cut(const std::string& name) {
  implementation_->cut.insert(name);
  implementation_->break_links("the connection was lost", [&](const Link& link) {
    return link.client_name == name || link.server->identity.name == name;
  });
}

void MemoryNetwork::join(const std::string& name) { implementation_->cut.erase(name); }

}  // namespace sami::transport
