// Sessions in memory: the twin of the gRPC transport for tests of daemons without sockets and certificates. One loop,
// one thread. Messages are serialised on the way, so that limits and unknown fields behave as on the wire.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "interfaces/transport/transport.h"

namespace sami::transport {

// The wire. Must outlive what is attached to it; the loop must outlive all.
class MemoryNetwork {
 public:
  explicit MemoryNetwork(Loop& loop);
  ~MemoryNetwork();

  // The SOM's side at `target`, until the returned object is destroyed. Error: InvalidInput: the target is taken.
  class Server {
   public:
    virtual ~Server() = default;
  };
  Result<std::unique_ptr<Server>> serve(const std::string& target, Identity identity, MasterHandlers handlers,
                                        Limits limits);

  std::unique_ptr<AgentClient> make_agent_client(const std::string& target, Identity identity, std::string master_name,
                                                 Limits limits);
  std::unique_ptr<TdeClient> make_tde_client(const std::string& target, Identity identity, std::string master_name,
                                             Limits limits);

  // Cuts every session with the peer of that name (its identity's name) and lets none be made, until joined again.
  void cut(const std::string& name);
  void join(const std::string& name);

  struct Implementation;

 private:
  std::shared_ptr<Implementation> implementation_;
};

}  // namespace sami::transport
