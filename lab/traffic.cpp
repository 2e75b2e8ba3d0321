#include "lab/traffic.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "lab/poll.h"

namespace sami::lab {
namespace {

const char* mode_of(TrafficKind kind) {
  switch (kind) {
    case TrafficKind::TcpServer:
      return "tcp-server";
    case TrafficKind::UdpServer:
      return "udp-server";
    case TrafficKind::TcpEcho:
      return "echo";
    case TrafficKind::TcpUpload:
      return "upload";
    case TrafficKind::TcpDownload:
      return "download";
    case TrafficKind::Udp:
      return "udp";
  }
  return "";
}

Result<TrafficReport> parse(const std::string& line) {
  try {
    const auto all = nlohmann::json::parse(line);
    TrafficReport report;
    report.connections = all.at("connections");
    report.established = all.at("established");
    report.broken = all.at("broken");
    report.exchanges = all.at("exchanges");
    report.bytes = all.at("bytes");
    report.mismatches = all.at("mismatches");
    report.sent = all.at("sent");
    report.lost = all.at("lost");
    report.changed_peers = all.at("changed_peers");
    report.least_exchanges = all.at("least_exchanges");
    report.longest_stall_ms = all.at("longest_stall_ms");
    report.waiting_ms = all.at("waiting_ms");
    report.peers = all.at("peers").get<std::vector<std::string>>();
    report.errors = all.at("errors").get<std::vector<std::string>>();
    return report;
  } catch (const std::exception& problem) {
    return failure(ErrorKind::Corrupt, fmt::format("report of traffic: {}: {}", problem.what(), line));
  }
}

}  // namespace

Result<Traffic> Traffic::start(const TrafficOptions& options, const std::string& binaries) {
  auto started =
      Conversation::start({binaries + "/sami-lab-traffic", mode_of(options.kind), "--address", options.address,
                           "--port", std::to_string(options.port), "--connections", std::to_string(options.connections),
                           "--interval-ms", std::to_string(options.interval_ms), "--bytes",
                           std::to_string(options.bytes), "--duration-ms", std::to_string(options.duration_ms)},
                          options.network_namespace);
  if (!started) return tl::unexpected(started.error());
  auto first = started->hear(std::chrono::seconds(5));
  if (!first) return tl::unexpected(first.error());
  if (*first != "ready") return failure(ErrorKind::Corrupt, "traffic said '" + *first + "', expected 'ready'");
  return Traffic(std::move(*started));
}

Result<TrafficReport> Traffic::report() {
  if (auto said = conversation_.say("report"); !said) return tl::unexpected(said.error());
  auto line = conversation_.hear(std::chrono::seconds(5));
  if (!line) return tl::unexpected(line.error());
  return parse(*line);
}

Result<TrafficReport> Traffic::stop() {
  if (auto said = conversation_.say("stop"); !said) return tl::unexpected(said.error());
  auto line = conversation_.hear(std::chrono::seconds(5));
  if (!line) return tl::unexpected(line.error());
  return parse(*line);
}

Result<void> Traffic::wait_until_established(std::chrono::milliseconds deadline) {
  Result<TrafficReport> latest = TrafficReport{};
  const bool done = poll_until(deadline, [&] {
    latest = report();
    return !latest || latest->established == latest->connections;
  });
  if (!latest) return tl::unexpected(latest.error());
  if (done) return {};
  return failure(ErrorKind::Retry, "not all connections are open: " + to_string(*latest));
}

Result<void> Traffic::wait_for_progress(int exchanges, std::chrono::milliseconds deadline) {
  auto latest = report();
  if (!latest) return tl::unexpected(latest.error());
  const int wanted = latest->least_exchanges + exchanges;
  const bool done = poll_until(deadline, [&] {
    latest = report();
    return !latest || latest->least_exchanges >= wanted;
  });
  if (!latest) return tl::unexpected(latest.error());
  if (done) return {};
  return failure(ErrorKind::Retry, "a connection makes no progress: " + to_string(*latest));
}

std::string to_string(const TrafficReport& r) {
  return fmt::format(
      "{} connections, {} established, {} broken, {} exchanges (least {}), {} bytes, {} mismatches, {} datagrams, {} "
      "lost, longest stall {:.0f} ms, waiting {:.0f} ms, errors: {}",
      r.connections, r.established, r.broken, r.exchanges, r.least_exchanges, r.bytes, r.mismatches, r.sent, r.lost,
      r.longest_stall_ms, r.waiting_ms, fmt::join(r.errors, ", "));
}

}  // namespace sami::lab
