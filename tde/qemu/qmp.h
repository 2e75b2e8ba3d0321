// A client of one QMP monitor on a unix socket: greets, matches answers to commands, hands events over, and connects
// again with backoff when QEMU is gone. A monitor of QEMU serves one client at a time: the gate needs one of its own.
//
// Threading: everything on the loop's thread. Nothing blocks.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/loop.h"
#include "tde/qemu/qmp_message.h"

namespace sami::tde::qmp {

struct ClientOptions {
  Duration first_delay = std::chrono::milliseconds(20);  // before trying again to connect; doubles
  Duration maximum_delay = std::chrono::seconds(1);
  Duration answer_deadline = std::chrono::seconds(10);  // of the greeting, and of every command: then it is cut off
};

class Client {
 public:
  struct Callbacks {
    std::function<void(const std::string& version)> on_connected = {};  // ready for commands; also after a reconnection
    std::function<void(const Event&)> on_event = {};
    std::function<void(const Error& reason)> on_disconnected = {};  // nobody answers; once until the next connection
  };
  // Runs once, on the loop. Errors: QEMU's own words as Failed, or as Unsupported when it does not know the command;
  // Reconnect when the connection was lost before the answer (it may have been carried out) or there is none.
  using Done = std::function<void(Result<Fields>)>;

  virtual ~Client() = default;
  // Once. A connection that was lost and is at once there again is reported as on_connected alone.
  virtual void start(Callbacks callbacks) = 0;
  virtual void execute(const Command& command, Done done) = 0;
  virtual bool connected() const = 0;
  virtual void connect_now() = 0;  // does not wait for the backoff to end
};

// path: of the socket. The loop must outlive the client.
std::unique_ptr<Client> make_client(std::string path, Loop& loop, ClientOptions options = {});

}  // namespace sami::tde::qmp
