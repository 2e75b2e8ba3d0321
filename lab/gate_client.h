// The interface for hypervisors of sami-tde (operator.proto, service Topology), as a hypervisor uses it.
//
// Threading: one thread at a time. Calls block for at most their deadline.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "runtime/result.h"

namespace sami::lab {

enum class GatePhase { Announced, Paused, Resumed, Cancelled };

// What the gate says of a move: instruction is "", "MayPause", "Continue", "Cancel", "FindOut", "Concluded", "Refused".
struct GateStatus {
  std::string notification_id;
  std::string migration_id;
  std::string state;
  std::string instruction;
  std::string detail;
};

class GateWatch {
 public:
  virtual ~GateWatch() = default;
  // The next status. Errors: Retry (nothing in time), Reconnect (the stream is gone: watch again).
  virtual Result<GateStatus> next(std::chrono::milliseconds deadline) = 0;
};

class GateClient {
 public:
  virtual ~GateClient() = default;
  // Returns the id that names the move, once the notification is durable; again the same if it is repeated. Errors:
  // Reconnect (no daemon answers), InvalidInput or Failed (it refuses; its words).
  virtual Result<std::string> announce(const std::string& vm, const std::string& server, bool force) = 0;
  virtual Result<void> notify(GatePhase phase, const std::string& notification_id) = 0;
  virtual Result<std::unique_ptr<GateWatch>> watch(const std::string& notification_id) = 0;
};

// Over gRPC on a local socket, given as a path.
std::unique_ptr<GateClient> make_gate_client(const std::string& socket);

// Asks any daemon on its control socket for its Status. program: "sami-som", "sami-soa" or "sami-tde".
struct DaemonStatus {
  std::string name;
  bool connected = false;
  std::string last_error;
};
Result<DaemonStatus> ask_status(const std::string& program, const std::string& socket,
                                std::chrono::milliseconds deadline = std::chrono::seconds(2));

}  // namespace sami::lab
