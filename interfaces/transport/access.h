// Who may call what. Pure: no gRPC, so that it can be read and tested as the table it is.
#pragma once

#include <string_view>

#include "interfaces/transport/identity.h"

namespace sami::transport {

// method: "/package.Service/Method" as gRPC names it. domain: the server's own. Error: InvalidInput, a sentence that
// says who was refused and what was expected.
Result<void> check_access(std::string_view method, const Identity& caller, std::string_view domain);

}  // namespace sami::transport
