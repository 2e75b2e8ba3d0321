// For gRPC methods of the local sockets and the operator's service: what they ask is answered on the daemon's loop.
// Threading: called on gRPC's threads, which wait; never on the loop's own.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <cerrno>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <utility>

#include "runtime/loop.h"
#include "runtime/result.h"

namespace sami::transport {

// Runs start(done) on the loop and waits until done was called with the answer. Nothing when the call was cancelled or
// the loop is gone.
template <typename Answer>
std::optional<Answer> ask_loop(const Executor& loop, const grpc::ServerContextBase& context,
                               std::function<void(std::function<void(Answer)>)> start) {
  auto promise = std::make_shared<std::promise<Answer>>();
  auto answer = promise->get_future();
  loop([start = std::move(start), promise = std::move(promise)]() mutable {
    start([promise = std::move(promise)](Answer value) { promise->set_value(std::move(value)); });
  });
  while (answer.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
    if (context.IsCancelled()) return std::nullopt;
  }
  try {
    return answer.get();
  } catch (const std::future_error&) {         // the loop dropped the task
    return std::nullopt;
  }
}

// The same for a function that has its answer at once.
template <typename Function>
auto call_on_loop(const Executor& loop, const grpc::ServerContextBase& context, Function function) {
  using Answer = std::invoke_result_t<Function>;
  return ask_loop<Answer>(loop, context, [function](std::function<void(Answer)> done) { done(function()); });
}

inline grpc::Status stopping() { return {grpc::StatusCode::UNAVAILABLE, "the daemon is stopping"}; }

// operator.proto's statuses. InvalidInput with ENOENT names something that is not there.
inline grpc::Status to_status(const Error& error) {
  const auto code = [&] {
    switch (error.kind) {
      case ErrorKind::InvalidInput:
        return error.system_error == ENOENT ? grpc::StatusCode::NOT_FOUND : grpc::StatusCode::INVALID_ARGUMENT;
      case ErrorKind::Retry:
      case ErrorKind::Reconnect: return grpc::StatusCode::UNAVAILABLE;
      case ErrorKind::Unsupported: return grpc::StatusCode::UNIMPLEMENTED;
      case ErrorKind::Corrupt: return grpc::StatusCode::DATA_LOSS;
      case ErrorKind::Failed: break;
    }
    return grpc::StatusCode::FAILED_PRECONDITION;
  }();
  return {code, error.message};
}

}  // namespace sami::transport
