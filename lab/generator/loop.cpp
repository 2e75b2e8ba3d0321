#include "lab/generator/loop.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>

namespace sami::lab::generator {
namespace {

Microseconds now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(since).count();
}

std::unique_ptr<Generator> make(const Options& options) {
  if (options.mode == "tcp-server") return make_tcp_server(options);
  if (options.mode == "udp-server") return make_udp_server(options);
  if (options.mode == "udp") return make_udp_client(options);
  return make_tcp_client(options);
}

void print(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
}

int open_stop_signals() {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  return ::signalfd(-1, &stop, SFD_NONBLOCK | SFD_CLOEXEC);
}

// False: end.
bool obey_input(std::string& buffer, const Generator& generator) {
  std::array<char, 256> bytes;
  const auto count = ::read(0, bytes.data(), bytes.size());
  if (count <= 0) return false;
  buffer.append(bytes.data(), static_cast<std::size_t>(count));
  for (auto end = buffer.find('\n'); end != std::string::npos; end = buffer.find('\n')) {
    const std::string word = buffer.substr(0, end);
    buffer.erase(0, end + 1);
    if (word == "stop") return false;
    if (word == "report") print(to_json(generator.report(now())));
  }
  return true;
}

template <typename Number>
bool parse_number(const std::string& text, Number low, Number high, Number& out) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) return false;
  out = value;
  return true;
}

}  // namespace

Result<Options> parse_options(const std::vector<std::string>& arguments) {
  const std::array modes{"tcp-server", "udp-server", "echo", "upload", "download", "udp"};
  Options options;
  if (!arguments.empty()) options.mode = arguments[0];
  if (std::find(modes.begin(), modes.end(), options.mode) == modes.end()) {
    return failure(ErrorKind::InvalidInput,
                   "expected: sami-lab-traffic tcp-server|udp-server|echo|upload|download|udp --address A --port P "
                   "[--connections N] [--interval-ms N] [--bytes N] [--duration-ms N]");
  }
  for (std::size_t i = 1; i < arguments.size(); i += 2) {
    const auto& name = arguments[i];
    const std::string value = i + 1 < arguments.size() ? arguments[i + 1] : "";
    bool understood = true;
    if (name == "--address")
      options.address = value;
    else if (name == "--port")
      understood = parse_number<std::uint16_t>(value, 1, 65535, options.port);
    else if (name == "--connections")
      understood = parse_number(value, 1, 20000, options.connections);
    else if (name == "--interval-ms")
      understood = parse_number(value, 0, 3600000, options.interval_ms);
    else if (name == "--bytes")
      understood = parse_number(value, 1, 60000, options.bytes);
    else if (name == "--duration-ms")
      understood = parse_number(value, 1, 3600000, options.duration_ms);
    else
      return failure(ErrorKind::InvalidInput, fmt::format("unknown argument '{}'", name));
    if (!understood) {
      return failure(ErrorKind::InvalidInput, fmt::format("{}: '{}' is not a number within its range", name, value));
    }
  }
  return options;
}

Result<void> run_generator(const Options& options) {
  const int signals = open_stop_signals();
  auto generator = make(options);
  const auto end = now() + Microseconds{options.duration_ms} * 1000;
  if (auto started = generator->start(now()); !started) return started;
  print("ready");
  std::string buffer;
  std::vector<pollfd> waiting;
  while (now() < end) {
    waiting = {{0, POLLIN, 0}, {signals, POLLIN, 0}};
    generator->collect(waiting);
    const auto due = std::min(end, generator->next_due());
    const auto left = std::max<Microseconds>(0, due - now());
    const timespec patience{left / 1'000'000, (left % 1'000'000) * 1000};
    if (::ppoll(waiting.data(), waiting.size(), &patience, nullptr) < 0) continue;
    if (waiting[1].revents != 0) break;
    if (waiting[0].revents != 0 && !obey_input(buffer, *generator)) break;
    generator->step(now(), waiting.data() + 2, waiting.size() - 2);
  }
  print(to_json(generator->report(now())));
  ::close(signals);
  return {};
}

}  // namespace sami::lab::generator
