// Sessions between daemons: typed messages over mTLS, or in memory. Both twins pass the same conformance suite.
//
// Threading: every callback runs on the executor that was handed in (the daemon's loop), never on a transport thread.
// send() may be called from any thread and never blocks: it queues. A queue that exceeds its limit closes the session
// (the peer does not read); the credit window of the protocol keeps a healthy one far below that.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "interfaces/if_m_a/if_m_a.pb.h"
#include "interfaces/if_m_t/if_m_t.pb.h"
#include "runtime/result.h"

namespace sami::transport {

// Runs the function later on the owner's loop. Thread-safe.
using Executor = std::function<void(std::function<void()>)>;

// Who is at the other end, from its certificate's URI SAN spiffe://<domain>/sami/<role>/<name>.
struct Identity {
  std::string domain;
  std::string role;   // "som", "soa", "tde", "operator", "viewer"
  std::string name;
  std::string uri() const;
};
// Error: InvalidInput, saying what was expected.
Result<Identity> parse_identity(std::string_view uri);

struct Credentials {
  std::string ca_file;            // PEM
  std::string certificate_file;
  std::string key_file;           // must not be readable by group or others
};

struct Limits {
  std::size_t message_bytes = 1 << 20;
  std::size_t queued_bytes = 32 << 20;       // per session, outgoing
  std::size_t sessions = 20'000;
  std::chrono::seconds first_message{10};    // a session that has not authorized by then is closed
  std::chrono::seconds keepalive{5};
};

// One side of a session. Destroying it closes it.
template <typename Outgoing>
class Session {
 public:
  virtual ~Session() = default;
  virtual void send(const Outgoing& message) = 0;
  virtual void close(const std::string& reason) = 0;   // on_closed follows
  virtual const Identity& peer() const = 0;
};

using AgentSession = Session<if_m_a::v1::MasterMessage>;   // the SOM's end
using TdeSession = Session<if_m_t::v1::MasterMessage>;     // the SOM's end

// The SOM's side. Only peers with a certificate of the CA, of the right domain and role, get as far as on_open.
struct MasterHandlers {
  std::function<void(std::shared_ptr<AgentSession>)> on_agent_open;
  std::function<void(const std::shared_ptr<AgentSession>&, if_m_a::v1::AgentMessage)> on_agent_message;
  std::function<void(const std::shared_ptr<AgentSession>&, std::string reason)> on_agent_closed;
  std::function<void(std::shared_ptr<TdeSession>)> on_tde_open;
  std::function<void(const std::shared_ptr<TdeSession>&, if_m_t::v1::TdeMessage)> on_tde_message;
  std::function<void(const std::shared_ptr<TdeSession>&, std::string reason)> on_tde_closed;
  // Refused before it opened: for the log and the audit trail.
  std::function<void(std::string peer, std::string reason)> on_refused;
};

// The dialling side. One session at a time; it reconnects by itself with bounded, jittered backoff until destroyed.
template <typename Outgoing, typename Incoming>
class Client {
 public:
  struct Handlers {
    std::function<void()> on_connected;
    std::function<void(Incoming)> on_message;
    std::function<void(std::string reason)> on_disconnected;
  };
  virtual ~Client() = default;
  virtual void start(Handlers handlers) = 0;
  virtual void send(const Outgoing& message) = 0;      // dropped while not connected
  virtual void reconnect(const std::string& reason) = 0;  // closes and dials again
};
using AgentClient = Client<if_m_a::v1::AgentMessage, if_m_a::v1::MasterMessage>;
using TdeClient = Client<if_m_t::v1::TdeMessage, if_m_t::v1::MasterMessage>;

// The gRPC twin (grpc_client.cpp). target: "host:port". master_name: the expected spiffe name of the SOM, role som.
std::unique_ptr<AgentClient> make_grpc_agent_client(std::string target, Credentials credentials, Limits limits,
                                                    Executor executor);
std::unique_ptr<TdeClient> make_grpc_tde_client(std::string target, Credentials credentials, Limits limits,
                                                Executor executor);

}  // namespace sami::transport
