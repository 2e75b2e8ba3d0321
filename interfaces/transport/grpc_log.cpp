#include "interfaces/transport/grpc_log.h"

#include <grpc/support/log.h>

#include <cstring>
#include <memory>
#include <mutex>

namespace sami::transport {
namespace {

// gRPC's log is one for the whole process, and so is its destination. Never destroyed: gRPC's threads log to the end.
struct Destination {
  Log log;
  RateLimit limit{20, std::chrono::seconds(10)};
};
Destination* destination = nullptr;

void forward(gpr_log_func_args* line) {
  const bool handshake = std::strstr(line->message, "andshak") != nullptr;
  if (handshake) {
    destination->log.limited(destination->limit, LogLevel::Warning,
                             "a connection was refused before it had an identity", {{"reason", line->message}});
  } else if (line->severity == GPR_LOG_SEVERITY_ERROR) {
    destination->log.limited(destination->limit, LogLevel::Debug, "grpc", {{"message", line->message}});
  }
}

}  // namespace

void log_grpc_to(Log log) {
  static std::once_flag once;
  std::call_once(once, [&] {
    destination = new Destination{std::move(log)};
    gpr_set_log_function(forward);
  });
}

}  // namespace sami::transport
