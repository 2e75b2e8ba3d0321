// Canonical records for people: `sami state show`. Pure.
#pragma once

#include <string>

#include "runtime/result.h"

namespace sami::state::connection_tracking {

// One line in the words of `conntrack -L`, with the VN first. Corrupt when the body is not a record.
Result<std::string> render_text(const std::string& body);
// One JSON object: vn, protocol, original and reply {source, destination, source_port, destination_port}, status
// (list), timeout_seconds, mark, tcp {state, ...}, helper.
Result<std::string> render_json(const std::string& body);

}  // namespace sami::state::connection_tracking
