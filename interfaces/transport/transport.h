// Sessions between daemons: typed messages over mTLS, or in memory. Both twins pass the same conformance suite.
//
// Threading: every callback runs on the loop that was handed in, never on a transport thread. Servers and clients are
// made and destroyed on that loop (or before it runs, or after); after that no callback of theirs runs. send() and
// close() of a session may be called from any thread and never block: they queue. A queue that exceeds its limit closes
// the session (the peer does not read); the credit window of the protocol keeps a healthy one far below that.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "interfaces/if_m_a/if_m_a.pb.h"
#include "interfaces/if_m_t/if_m_t.pb.h"
#include "interfaces/transport/identity.h"
#include "runtime/loop.h"
#include "runtime/result.h"

namespace sami::transport {

struct Limits {
  std::size_t message_bytes = 1 << 20;       // a larger one closes the session, at either end
  std::size_t queued_bytes = 32 << 20;       // per session, outgoing
  std::size_t sessions = 20'000;             // of a server; one more is refused
  std::chrono::milliseconds first_message{10'000};  // a session whose peer has sent nothing by then is closed
  std::chrono::milliseconds keepalive{5'000};       // a peer that is silent to pings for two of these is dead
};

// The SOM's end of a session. Destroying the last reference does not close it: close() or the peer does.
template <typename Outgoing>
class Session {
 public:
  virtual ~Session() = default;
  virtual void send(const Outgoing& message) = 0;      // dropped once it is closed
  // Sends what is queued, then ends the stream; the peer sees the reason. on_closed follows. Once is enough.
  virtual void close(const std::string& reason) = 0;
  virtual const Identity& peer() const = 0;
  // Octets that were sent and have not left yet. Any thread. While it is high a relay leaves out what is repeated.
  virtual std::size_t queued_bytes() const = 0;
};
using AgentSession = Session<if_m_a::v1::MasterMessage>;
using TdeSession = Session<if_m_t::v1::MasterMessage>;

// The SOM's side. Only peers with a certificate of the CA, of the right domain and role, get as far as on_open;
// on_closed follows each on_open exactly once, unless the server is destroyed before. Every handler must be set.
struct MasterHandlers {
  std::function<void(std::shared_ptr<AgentSession>)> on_agent_open;
  std::function<void(const std::shared_ptr<AgentSession>&, if_m_a::v1::AgentMessage)> on_agent_message;
  std::function<void(const std::shared_ptr<AgentSession>&, std::string reason)> on_agent_closed;
  std::function<void(std::shared_ptr<TdeSession>)> on_tde_open;
  std::function<void(const std::shared_ptr<TdeSession>&, if_m_t::v1::TdeMessage)> on_tde_message;
  std::function<void(const std::shared_ptr<TdeSession>&, std::string reason)> on_tde_closed;
  // Refused before it opened, for the log and the audit trail: who (address, identity where known) and why. A peer
  // whose certificate another CA signed, or that has none, does not get as far: see grpc_log.h.
  std::function<void(std::string peer, std::string reason)> on_refused;
};

// The dialling side. One session at a time; it reconnects by itself with bounded, jittered backoff (100 ms to 5 s)
// until destroyed (not from inside one of its handlers).
template <typename Outgoing, typename Incoming>
class Client {
 public:
  struct Handlers {
    std::function<void()> on_connected;
    std::function<void(Incoming)> on_message;
    // Also for every attempt that fails. A sentence for a human. Another attempt follows by itself.
    std::function<void(std::string reason)> on_disconnected;
  };
  virtual ~Client() = default;
  virtual void start(Handlers handlers) = 0;           // once
  virtual void send(const Outgoing& message) = 0;      // loop thread; dropped while not connected
  virtual void reconnect(const std::string& reason) = 0;  // loop thread; closes (on_disconnected) and dials again
};
using AgentClient = Client<if_m_a::v1::AgentMessage, if_m_a::v1::MasterMessage>;
using TdeClient = Client<if_m_t::v1::TdeMessage, if_m_t::v1::MasterMessage>;

struct ClientConfig {
  std::string target;             // "host:port"
  Credentials credentials;        // files are read again for each attempt, so they may be replaced
  std::string master_name;        // the server must be spiffe://<domain of our certificate>/sami/som/<master_name>
  Limits limits;
};

// The gRPC twin (grpc_client.cpp). Errors: InvalidInput: credentials that cannot be used, bad target or name.
Result<std::unique_ptr<AgentClient>> make_agent_client(ClientConfig config, Loop& loop);
Result<std::unique_ptr<TdeClient>> make_tde_client(ClientConfig config, Loop& loop);

}  // namespace sami::transport
