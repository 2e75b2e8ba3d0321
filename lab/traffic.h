// Traffic inside a lab: sami-lab-traffic started in a node's namespace, and what it says of itself. It ends with its
// object, or with the caller's process. Not thread-safe; calls block for milliseconds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lab/process.h"
#include "runtime/result.h"

namespace sami::lab {

enum class TrafficKind { TcpServer, UdpServer, TcpEcho, TcpUpload, TcpDownload, Udp };

struct TrafficOptions {
  TrafficKind kind = TrafficKind::TcpEcho;
  std::string network_namespace;
  std::string address;  // to listen on (servers), or to connect to
  int port = 0;
  int connections = 1;
  int interval_ms = 20;  // between two messages of a connection; 0 for bulk: as fast as it goes
  int bytes = 100;       // of a message
  int duration_ms = 600000;
};

// See lab/generator/generator.h for the exact meaning of each.
struct TrafficReport {
  int connections = 0;
  int established = 0;
  int broken = 0;
  std::uint64_t exchanges = 0;
  std::uint64_t bytes = 0;
  std::uint64_t mismatches = 0;
  std::uint64_t sent = 0;
  std::uint64_t lost = 0;
  int changed_peers = 0;
  int least_exchanges = 0;
  double longest_stall_ms = 0;
  double waiting_ms = 0;
  std::vector<std::string> peers;
  std::vector<std::string> errors;
};

class Traffic {
 public:
  // Returns once it listens, or has begun to connect. Errors: Failed.
  static Result<Traffic> start(const TrafficOptions& options, const std::string& binaries);
  Result<TrafficReport> report();
  Result<TrafficReport> stop();  // the last report; every later call is an error

  // Until every connection is open (TCP), or has been answered (UDP). Error: Retry, with the report.
  Result<void> wait_until_established(std::chrono::milliseconds deadline = std::chrono::seconds(10));
  // Until every connection has had `exchanges` more answers from now on. Error: Retry, with the report.
  Result<void> wait_for_progress(int exchanges, std::chrono::milliseconds deadline = std::chrono::seconds(10));

 private:
  explicit Traffic(Conversation conversation) : conversation_(std::move(conversation)) {}
  Conversation conversation_;
};

std::string to_string(const TrafficReport& report);

}  // namespace sami::lab
