// What sami-som has done since it started, for `sami status` and metrics.
#pragma once

#include <array>
#include <cstdint>

namespace sami::som {

struct Counters {
  std::uint64_t chunks_relayed = 0;
  std::uint64_t bytes_relayed = 0;
  std::uint64_t chunks_left_out = 0;   // the destination did not keep up; its source repeats them
  std::uint64_t messages_received = 0;
  std::uint64_t messages_refused = 0;
  std::uint64_t sessions_refused = 0;
  std::uint64_t sessions_replaced = 0;
  std::uint64_t journal_commits = 0;
  std::uint64_t journal_failures = 0;
  std::uint64_t resyncs = 0;
  std::uint64_t migrations_done = 0;
  std::uint64_t migrations_done_with_loss = 0;
  std::uint64_t migrations_rolled_back = 0;
};

}  // namespace sami::som
