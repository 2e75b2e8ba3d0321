#include "tests/sim/network.h"

#include <algorithm>

namespace sami::sim {

void Link::dial_later() {
  if (dialling_) return;
  dialling_ = true;
  engine_.after(engine_.delay_ms(20, 200), [this] {
    dialling_ = false;
    dial();
  });
}

void Link::dial() {
  if (client_connected_) return;
  if (engine_.now < partitioned_until_ || !client_.up() || !server_.up()) return dial_later();
  if (server_connected_) {
    server_connected_ = false;
    server_.disconnected();
    if (!server_.up()) return dial_later();
  }
  stream_ = std::make_shared<Stream>();
  client_connected_ = server_connected_ = true;
  engine_.record(name_);
  if (engine_.tracing()) engine_.trace(name_ + ": connected");
  const auto stream = stream_;
  server_.connected();
  if (stream_ == stream && client_connected_ && client_.up()) client_.connected();
}

void Link::deliver(Instant& last, const bool& receiver, std::function<void()> run) {
  Instant when = engine_.now + engine_.delay_ms(0, engine_.settings.latency_ms);
  if (!engine_.fault(engine_.settings.reorder)) when = last = std::max(when, last);
  engine_.at(when, [this, stream = stream_, &receiver, run = std::move(run)] {
    if (stream != stream_ || (stream->cut && stream->loses) || !receiver) return;
    run();
  });
}

void Link::to_server(std::function<void()> run) {
  if (!client_connected_ || stream_->cut || engine_.fault(engine_.settings.loss)) return;
  if (engine_.fault(engine_.settings.duplicate)) deliver(stream_->last_to_server, server_connected_, run);
  deliver(stream_->last_to_server, server_connected_, std::move(run));
}

void Link::to_client(std::function<void()> run, bool may_be_dropped) {
  if (!server_connected_ || stream_->cut || engine_.fault(engine_.settings.loss)) return;
  if (may_be_dropped && engine_.fault(engine_.settings.loss)) return;
  if (engine_.fault(engine_.settings.duplicate)) deliver(stream_->last_to_client, client_connected_, run);
  deliver(stream_->last_to_client, client_connected_, std::move(run));
}

// The notices come later, unless the end is gone or has a new stream by then.
void Link::break_stream(Duration client_notices, Duration server_notices) {
  if (!stream_ || stream_->cut) return;
  stream_->cut = true;
  stream_->loses = engine_.random.chance(500);
  if (engine_.tracing()) engine_.trace(name_ + ": broken");
  engine_.after(client_notices, [this, stream = stream_] {
    if (stream != stream_ || !client_connected_) return;
    client_connected_ = false;
    client_.disconnected();
    dial_later();
  });
  engine_.after(server_notices, [this, stream = stream_] {
    if (stream != stream_ || !server_connected_) return;
    server_connected_ = false;
    server_.disconnected();
  });
}

void Link::cut(Duration partition) {
  partitioned_until_ = std::max(partitioned_until_, engine_.now + partition);
  break_stream(engine_.delay_ms(0, 500), engine_.delay_ms(0, 1500));
}

void Link::client_gone() {
  client_connected_ = false;
  break_stream(Duration{0}, engine_.delay_ms(0, 1000));
  dial_later();
}

void Link::server_gone() {
  server_connected_ = false;
  break_stream(engine_.delay_ms(0, 300), Duration{0});
}

}  // namespace sami::sim
