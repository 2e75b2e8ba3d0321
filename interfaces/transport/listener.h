// Accepts connections and hands over their descriptors. A thread of its own. When descriptors run out it waits for some
// to be closed and goes on; it leaves a reserve of 64 for files (a connection beyond that is closed at once).
// Both kinds fail with InvalidInput where the process may open fewer than 128 descriptors.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/result.h"

namespace sami::transport {

class Listener {
 public:
  // endpoint: "host:port", port 0: any; all addresses of the host.
  // Errors: InvalidInput: bad or unknown host; Failed: taken.
  static Result<std::unique_ptr<Listener>> on_port(const std::string& endpoint);
  // Mode 0600. <path>.lock says who owns it.
  // Errors: InvalidInput: a live daemon owns it, too long, not a socket; Failed.
  static Result<std::unique_ptr<Listener>> on_socket(const std::string& path);

  // Stops accepting; connections that were handed over live on. Removes the socket file.
  virtual ~Listener() = default;
  virtual int port() const = 0;
  // Once. `accepted` runs on the listener's thread and owns the descriptor (non-blocking, close-on-exec).
  // `turned_away` runs there, too: a connection is closed, or has to wait, because descriptors have run out.
  virtual void start(std::function<void(int listener, int connection)> accepted, std::function<void()> turned_away) = 0;
};

}  // namespace sami::transport
