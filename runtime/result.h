// The one result type. An error says what the caller does about it, and a sentence a human can act on.
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace sami {

// What the caller does about a failure.
enum class ErrorKind {
  Retry,          // the same call may succeed later (EAGAIN, ENOBUFS, a busy peer)
  Reconnect,      // the channel is gone: open it again, then repeat
  Unsupported,    // this host, kernel or version cannot do it; do not repeat
  InvalidInput,   // the caller's fault: the message says what, where and what was expected
  Corrupt,        // stored or received bytes make no sense: discard them, do not repeat
  Failed,         // the operating system refused for a reason that repeating does not change
};

std::string_view to_string(ErrorKind kind);

struct Error {
  ErrorKind kind = ErrorKind::Failed;
  std::string message;
  int system_error = 0;  // errno, 0 when there is none
};

template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

inline tl::unexpected<Error> failure(ErrorKind kind, std::string message, int system_error = 0) {
  return tl::unexpected<Error>(Error{kind, std::move(message), system_error});
}

}  // namespace sami
