// Time. Only runtime/ reads a clock; everything else is handed an Instant.
#pragma once

#include <chrono>
#include <cstdint>

namespace sami {

using Duration = std::chrono::nanoseconds;

// A point on a monotonic clock; its origin means nothing outside the process.
struct Instant {
  std::int64_t nanoseconds = 0;
  friend constexpr auto operator<=>(const Instant&, const Instant&) = default;
  friend constexpr Instant operator+(Instant at, Duration d) { return {at.nanoseconds + d.count()}; }
  friend constexpr Duration operator-(Instant a, Instant b) { return Duration{a.nanoseconds - b.nanoseconds}; }
  static constexpr Instant never() { return {INT64_MAX}; }
};

// Wall-clock time, for people: audit and logs. Microseconds since the Unix epoch.
using WallTime = std::int64_t;

// Thread-safe. The simulator and the tests have their own.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const = 0;
  virtual WallTime wall() const = 0;
};

// CLOCK_MONOTONIC and CLOCK_REALTIME.
const Clock& system_clock();

}  // namespace sami
