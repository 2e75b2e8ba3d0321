// gRPC's own log lines (failed TLS handshakes: a wrong or missing certificate, garbage on the port) into a Log.
#pragma once

#include "runtime/log.h"

namespace sami::transport {

// For the whole process; the first call counts. Rate-limited. Call it in main before a server or channel is made.
void log_grpc_to(Log log);

}  // namespace sami::transport
