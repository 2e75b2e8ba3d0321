#include "runtime/result.h"

namespace sami {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Retry: return "retry";
    case ErrorKind::Reconnect: return "reconnect";
    case ErrorKind::Unsupported: return "unsupported";
    case ErrorKind::InvalidInput: return "invalid input";
    case ErrorKind::Corrupt: return "corrupt";
    case ErrorKind::Failed: return "failed";
  }
  return "unknown";
}

}  // namespace sami
