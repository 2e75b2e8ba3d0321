// How an operator's request fails. Becomes a gRPC status of the same name at the edge.
#pragma once

#include <functional>
#include <string>
#include <tl/expected.hpp>

namespace sami::som {

enum class ProblemKind {
  NotFound,
  InvalidArgument,
  FailedPrecondition,
  Unavailable,
  DeadlineExceeded,
  ResourceExhausted,
};

struct Problem {
  ProblemKind kind = ProblemKind::Unavailable;
  std::string message;                 // what, where, what was expected
};

template <typename T>
using Answer = tl::expected<T, Problem>;
// Called exactly once, on the loop.
template <typename T>
using Reply = std::function<void(Answer<T>)>;

inline tl::unexpected<Problem> problem(ProblemKind kind, std::string message) {
  return tl::unexpected<Problem>(Problem{kind, std::move(message)});
}

}  // namespace sami::som
