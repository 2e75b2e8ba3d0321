// gRPC servers: the SOM's port with mTLS, and a daemon's local control socket.
//
// TLS 1.3; a client certificate of the CA is required. Who may call what is decided here, in one place, before a method
// runs: IF(M,A) role soa, IF(M,T) role tde, Master role operator, and viewer for what alters nothing (access.h);
// whatever else is denied. The certificate's domain must be the server's own. Connections are accepted by an own thread
// (listener.h), because gRPC 1.51 stops listening for good when descriptors run out once.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "interfaces/transport/transport.h"

namespace grpc {
class ServerContextBase;
class Service;
}  // namespace grpc

namespace sami::transport {

struct ServerConfig {
  std::string listen;             // "host:port"; port 0: any
  Credentials credentials;        // replaced files are taken within a minute
  Limits limits;
};

class Server {
 public:
  // Loop thread. Closes every session (on_closed is not called any more), waits for running calls of other services
  // for at most 2 s, then cancels them.
  virtual ~Server() = default;
  virtual int port() const = 0;   // 0 for a local server
};

// Serves the two session services, and beside them `services` (the operator's Master), which must outlive the server.
// Their methods run on gRPC's threads. Errors: InvalidInput: bad address or credentials; Failed: the port is taken.
Result<std::unique_ptr<Server>> start_server(const ServerConfig& config, MasterHandlers handlers,
                                             const std::vector<grpc::Service*>& services, Loop& loop);

// Serves on a Unix socket, mode 0600, no TLS: whoever may open it may do everything. A socket file that a dead daemon
// left is replaced. Errors: InvalidInput: a live daemon owns it, the path is too long or not a socket; Failed.
Result<std::unique_ptr<Server>> start_local_server(const std::string& path,
                                                   const std::vector<grpc::Service*>& services);

// Who called, inside a method of such a service, for the audit trail: "operator/alice", or "local" on the local socket.
std::string caller_name(const grpc::ServerContextBase& context);

}  // namespace sami::transport
