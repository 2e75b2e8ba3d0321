#include "tde/qemu/tests/fake_qemu.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>

namespace sami::tde::qmp {

using nlohmann::json;

namespace {

constexpr std::int64_t kSlow = 4 * 1024 * 1024;  // below it, copying never ends in the time of a test

bool moves(const std::string& status) {
  return status == "setup" || status == "active" || status == "pre-switchover" || status == "device";
}

}  // namespace

struct FakeQemu::Given {
  std::string name;
  json arguments;
  json value = json::object();
};

FakeQemu::FakeQemu(std::string path, bool incoming, FakeNetwork& network, Loop& loop)
    : path_(std::move(path)), network_(network), loop_(loop), run_state_(incoming ? "inmigrate" : "running") {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof address.sun_path - 1);
  ::unlink(path_.c_str());
  listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_, 1) != 0) {
    throw std::runtime_error("cannot listen on " + path_);
  }
  listening_ = loop_.watch(listener_, [this] { accept(); });
}

FakeQemu::~FakeQemu() {
  *alive_ = false;
  hang_up();
  loop_.unwatch(listening_);
  ::close(listener_);
  if (!waits_at_.empty()) network_.erase(waits_at_);
}

void FakeQemu::accept() {
  if (connection_ >= 0) return hang_up();
  connection_ = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (connection_ < 0) return;
  negotiated_ = false;
  reading_ = loop_.watch(connection_, [this] { read(); });
  if (!silent_)
    say(R"({"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}})");
}

void FakeQemu::hang_up() {
  loop_.unwatch(std::exchange(reading_, 0));
  if (connection_ >= 0) ::close(std::exchange(connection_, -1));
  input_.clear();
}

void FakeQemu::say(const std::string& line) { say_bytes(line + "\r\n"); }

void FakeQemu::say_bytes(const std::string& bytes) {
  if (connection_ < 0) return;
  (void)::send(connection_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

void FakeQemu::read() {
  std::array<char, 4096> bytes;
  const auto count = ::recv(connection_, bytes.data(), bytes.size(), 0);
  if (count == 0) return hang_up();
  if (count > 0) input_.append(bytes.data(), static_cast<std::size_t>(count));
  const auto alive = alive_;
  for (auto end = input_.find('\n'); *alive && end != std::string::npos; end = input_.find('\n')) {
    const std::string line = input_.substr(0, end);
    input_.erase(0, end + 1);
    take(line);
  }
}

void FakeQemu::take(const std::string& line) {
  const json message = json::parse(line, nullptr, false);
  if (silent_) return;
  if (!message.is_object() || !message.contains("execute")) {
    return say(R"({"error": {"class": "GenericError", "desc": "JSON parse error, invalid keyword 'x'"}})");
  }
  Given command{message["execute"].get<std::string>(), message.value("arguments", json::object())};
  commands_.push_back(command.name);
  const std::string refusal = answer(command);
  if (refusal.empty()) {
    say(json{{"return", command.value}, {"id", message["id"]}}.dump());
    return;
  }
  const auto colon = refusal.find(':');
  say(json{{"error", {{"class", refusal.substr(0, colon)}, {"desc", refusal.substr(colon + 1)}}}, {"id", message["id"]}}
          .dump());
}

void FakeQemu::execute(const Command& command) {
  (void)migration_command({command.name, json::parse(command.arguments, nullptr, false), {}});
}

std::string FakeQemu::answer(Given& command) {
  if (!negotiated_) {
    if (command.name != "qmp_capabilities") {
      return "CommandNotFound:Expecting capabilities negotiation with 'qmp_capabilities'";
    }
    negotiated_ = true;
    return "";
  }
  if (command.name == "query-status") {
    command.value = {{"status", run_state_}, {"running", running()}, {"singlestep", false}};
  } else if (command.name == "query-migrate") {
    if (status_ != "none") command.value = {{"status", status_}, {"blocked", false}};
  } else if (command.name == "query-migrate-parameters") {
    command.value = {{"max-bandwidth", bandwidth_}};
  } else if (command.name == "stop" || command.name == "cont") {
    run_state_ = command.name == "stop" ? "paused" : "running";
    event(command.name == "stop" ? "STOP" : "RESUME");
  } else {
    return migration_command(command);
  }
  return "";
}

std::string FakeQemu::migration_command(const Given& command) {
  if (command.name == "migrate-set-parameters") {
    bandwidth_ = command.arguments.value("max-bandwidth", bandwidth_);
  } else if (command.name == "migrate-set-capabilities") {
    if (moves(status_) && run_state_ != "inmigrate") return "GenericError:There's a migration process in progress";
    for (const auto& one : command.arguments["capabilities"]) {
      const std::string name = one["capability"];
      if (name.find(' ') != std::string::npos) return "GenericError:Parameter 'capability' does not accept value";
      capabilities_[name] = one["state"];
    }
  } else if (command.name == "migrate-incoming") {
    if (run_state_ != "inmigrate") return "GenericError:'-incoming' was not specified on the command line";
    waits_at_ = command.arguments["uri"];
    network_[waits_at_] = this;
    migration("setup");
  } else if (command.name == "migrate") {
    return begin(command.arguments["uri"]);
  } else if (command.name == "migrate-continue") {
    if (status_ != "pre-switchover") return "GenericError:Migration not in expected state: " + status_;
    after(0, &FakeQemu::switch_over);
  } else if (command.name == "migrate_cancel") {
    if (moves(status_)) {
      migration("cancelling");
      after(0, &FakeQemu::copy);
    }
  } else {
    return fmt::format("CommandNotFound:The command {} has not been found", command.name);
  }
  return "";
}

std::string FakeQemu::begin(const std::string& uri) {
  if (moves(status_)) return "GenericError:There's a migration process in progress";
  destination_ = uri;
  migration("setup");
  after(1, &FakeQemu::copy);
  return "";
}

void FakeQemu::after(int milliseconds, void (FakeQemu::*step)()) {
  loop_.call_after(std::chrono::milliseconds(milliseconds), [this, step, alive = alive_] {
    if (*alive) (this->*step)();
  });
}

// One round of copying, or what has become of it.
void FakeQemu::copy() {
  if (status_ == "cancelling") return end_at_source("cancelled");
  const auto destination = network_.find(destination_);
  if (destination == network_.end()) return end_at_source("failed");
  if (status_ == "setup") {
    destination->second->migration("active");
    migration("active");
    return after(2, &FakeQemu::copy);
  }
  if (status_ != "active") return;
  if (bandwidth_ < kSlow) return after(5, &FakeQemu::copy);
  const bool ran = running();
  run_state_ = "finish-migrate";
  if (ran) event("STOP");
  if (!capability("pause-before-switchover")) return switch_over();
  migration("pre-switchover");
}

void FakeQemu::switch_over() {
  if (status_ != "pre-switchover" && status_ != "active") return;
  const auto found = network_.find(destination_);
  migration("device");
  if (found == network_.end()) return end_at_source("failed");
  FakeQemu& destination = *found->second;
  network_.erase(found);
  migration("completed");
  run_state_ = "postmigrate";
  destination.waits_at_.clear();
  destination.run_state_ = "running";
  destination.event("RESUME");
  destination.migration("completed");
}

void FakeQemu::end_at_source(const std::string& status) {
  migration(status);
  if (const auto destination = network_.find(destination_); destination != network_.end()) {
    destination->second->hang_up();
    network_.erase(destination);
  }
  if (run_state_ != "finish-migrate") return;
  run_state_ = "running";
  event("RESUME");
}

void FakeQemu::event(const std::string& name, const std::string& data) {
  if (!negotiated_) return;
  say(fmt::format(R"({{"timestamp": {{"seconds": 1700000000, "microseconds": 5}}, "event": "{}"{}}})", name,
                  data.empty() ? "" : ", \"data\": " + data));
}

void FakeQemu::migration(const std::string& status) {
  status_ = status;
  if (capability("events")) event("MIGRATION", fmt::format(R"({{"status": "{}"}})", status));
}

}  // namespace sami::tde::qmp
