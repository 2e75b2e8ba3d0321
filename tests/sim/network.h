// A link between a daemon and the master: one stream at a time, dialled by the daemon. Within a stream messages keep
// their order unless the run reorders; with a stream that breaks, what is under way may be lost. Each end notices at
// its own time, and an end always hears of the old stream's end before it hears of a new one.
#pragma once

#include <functional>
#include <memory>

#include "tests/sim/engine.h"

namespace sami::sim {

class Link {
 public:
  struct End {
    std::function<bool()> up;  // there is a machine that can take a stream
    std::function<void()> connected;
    std::function<void()> disconnected;
  };
  Link(Engine& engine, std::string name, End client, End server)
      : engine_(engine), name_(std::move(name)), client_(std::move(client)), server_(std::move(server)) {}
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // Begins to dial, again and again.
  void start() { dial_later(); }
  // deliver runs at the other end; may be lost: dropped without a word.
  void to_server(std::function<void()> deliver);
  void to_client(std::function<void()> deliver, bool may_be_dropped);
  // The stream breaks, and no other is made for so long.
  void cut(Duration partition);
  // The process died, or its machine was rebuilt: no notice to itself.
  void client_gone();
  void server_gone();

 private:
  struct Stream {
    bool cut = false;
    bool loses = false;  // what is under way
    Instant last_to_server{0};
    Instant last_to_client{0};
  };
  void dial_later();
  void dial();
  void break_stream(Duration client_notices, Duration server_notices);
  void deliver(Instant& last, const bool& receiver, std::function<void()> run);

  Engine& engine_;
  const std::string name_;
  const End client_;
  const End server_;
  std::shared_ptr<Stream> stream_;
  bool client_connected_ = false;
  bool server_connected_ = false;
  bool dialling_ = false;
  Instant partitioned_until_{0};
};

}  // namespace sami::sim
