// The parts of sami-lab-traffic: each a set of sockets driven by one poll loop (main.cpp), that says how it fares.
//
// Not thread-safe: one loop calls everything. Nothing blocks. Times are microseconds of a monotonic clock.
#pragma once

#include <poll.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/result.h"

namespace sami::lab::generator {

using Microseconds = std::int64_t;

struct Options {
  std::string mode;     // tcp-server, udp-server, echo, upload, download, udp
  std::string address;  // to listen on, or to connect to (IPv4)
  std::uint16_t port = 0;
  int connections = 1;
  int interval_ms = 20;      // between two messages of a connection; 0: as fast as it goes
  int bytes = 100;           // of a message
  int duration_ms = 600000;  // then it ends by itself
};

// What a generator reports, as one line of JSON. Fields that mean nothing to a mode stay 0.
struct Report {
  std::string mode;
  int connections = 0;              // wanted (client) or seen (server)
  int established = 0;              // open and unbroken
  int broken = 0;                   // ended by an error or by the peer
  std::uint64_t exchanges = 0;      // messages answered
  std::uint64_t bytes = 0;          // verified (or sent, for upload)
  std::uint64_t mismatches = 0;     // bytes that were not what was expected
  std::uint64_t sent = 0;           // datagrams
  std::uint64_t lost = 0;           // datagrams unanswered for a second
  int changed_peers = 0;            // flows that a server saw under more than one address and port
  int least_exchanges = 0;          // of the connection that has fewest
  Microseconds longest_stall = 0;   // longest wait for progress, what is being waited for now included
  Microseconds waiting = 0;         // longest wait that is not over
  std::vector<std::string> peers;   // server: "address:port" of each
  std::vector<std::string> errors;  // at most 16
  void error(const std::string& text);
};
std::string to_json(const Report& report);

class Generator {
 public:
  virtual ~Generator() = default;
  virtual Result<void> start(Microseconds now) = 0;
  virtual void collect(std::vector<pollfd>& waiting) const = 0;                     // appends what it waits for
  virtual void step(Microseconds now, const pollfd* ready, std::size_t count) = 0;  // what collect appended, in order
  virtual Microseconds next_due() const = 0;  // when step wants to be called regardless
  virtual Report report(Microseconds now) const = 0;
};

std::unique_ptr<Generator> make_tcp_server(const Options& options);
std::unique_ptr<Generator> make_tcp_client(const Options& options);
std::unique_ptr<Generator> make_udp_server(const Options& options);
std::unique_ptr<Generator> make_udp_client(const Options& options);

inline constexpr Microseconds kNever = INT64_MAX;

// The byte at a position of every stream and message.
inline char pattern(std::uint64_t position) { return static_cast<char>((position * 131 + (position >> 9)) & 0xff); }

// A non-blocking socket of the type (SOCK_STREAM, SOCK_DGRAM), bound (and listening) or connecting. Owns nothing.
Result<int> open_server(const Options& options, int type);
Result<int> open_client(const Options& options, int type);

}  // namespace sami::lab::generator
