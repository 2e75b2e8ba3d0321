#include "lab/qemu.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>

#include "lab/process.h"
#include "runtime/loop.h"
#include "tde/qemu/qmp.h"

namespace sami::lab {
namespace {

namespace fs = std::filesystem;
namespace qmp = tde::qmp;
using std::chrono::milliseconds;

constexpr const char* kProgram = "qemu-system-x86_64";
constexpr milliseconds kBootDeadline{60000};
constexpr milliseconds kAnswerDeadline{15000};

std::string text_of(const std::string& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// pti=on: the guest empties QEMU's TLB at every entry into its kernel. Without it QEMU 7.2's TCG loses what a busy
// guest writes: the migration clears dirty bits of pages whose TLB entries go on saying "dirty already"
// (cpu_physical_memory_sync_dirty_bitmap), and after a few moves the guest's memory is corrupt. KVM has a log of its
// own.
constexpr const char* kKernelOptions = "console=ttyS0 quiet pti=on";

// One QEMU, and what it said.
struct Instance {
  struct Happened {
    std::int64_t microseconds = 0;
    std::string what;  // "STOP", "MIGRATION active"
  };
  std::string server;
  std::string port;
  std::string serial;
  std::string log;
  ProcessIdentity process;
  std::unique_ptr<qmp::Client> client;
  std::vector<Happened> events;

  const Happened* last(const std::string& what) const {
    const auto found = std::find_if(events.rbegin(), events.rend(), [&](const auto& one) { return one.what == what; });
    return found == events.rend() ? nullptr : &*found;
  }
  bool saw(const std::string& what) const { return last(what) != nullptr; }
};

}  // namespace

Result<GuestImage> guest_image() {
  const char* chosen = std::getenv("SAMI_GUEST_IMAGE");
  const std::string folder =
      chosen != nullptr && *chosen != '\0' ? chosen : (fs::path(programs_folder()).parent_path() / "guest").string();
  const GuestImage image{folder + "/vmlinuz", folder + "/initrd.gz"};
  if (auto there = run({kProgram, "--version"}); !there) {
    return failure(ErrorKind::Unsupported, "no QEMU: " + there.error().message);
  }
  if (fs::exists(image.initrd)) return image;
  auto made = run({SAMI_LAB_GUEST "/make.sh", folder},
                  {.network_namespace = {}, .input = {}, .deadline = milliseconds(180000)});
  if (!made) return failure(ErrorKind::Unsupported, "no guest can be made: " + made.error().message);
  return image;
}

std::string to_string(const QemuMove& move) {
  std::string text =
      fmt::format("{}, gate {:.1f} ms, not running {:.1f} ms\n", move.status, move.gate_ms, move.not_running_ms);
  for (const auto& step : move.timeline) text += fmt::format("{:10.1f} ms  {}\n", step.milliseconds, step.what);
  return text;
}

class QemuGuest::Implementation {
 public:
  using At = QemuMoveOptions::At;

  Implementation(Lab& lab, GuestImage image, bool gate) : lab_(lab), image_(std::move(image)), gate_(gate) {}
  ~Implementation() {
    for (auto* one : {source_.get(), destination_.get()}) {
      if (one != nullptr) end(*one);
    }
  }
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;

  Result<void> boot(const std::string& server, const std::string& port) {
    if (auto started = start(server, port, false); !started) return tl::unexpected(started.error());
    source_ = std::move(started_);
    const auto ready = [this] { return text_of(source_->serial).find("READY") != std::string::npos; };
    if (!loop_.run_until(ready, kBootDeadline)) {
      return failure(ErrorKind::Failed, fmt::format("the guest does not get ready: {}{}", text_of(source_->log),
                                                    text_of(source_->serial)));
    }
    return follow(server, server == "server1" ? "server2" : "server1");
  }

  Result<QemuMove> move(const std::string& server, const QemuMoveOptions& options) {
    if (auto prepared = prepare(server, options); !prepared) return tl::unexpected(prepared.error());
    const std::string uri = fmt::format("unix:{}/qmp/migration-{}", lab_.folder(), ++moves_);
    if (auto told = ask(*destination_, qmp::migrate_incoming(uri)); !told) return tl::unexpected(told.error());
    source_->events.clear();
    if (auto told = ask(*source_, qmp::migrate(uri)); !told) return tl::unexpected(told.error());
    const auto ended = watch(options);
    const QemuMove report = summary();
    if (!ended) {
      return failure(ErrorKind::Retry, fmt::format("the migration does not end: {}", to_string(report)));
    }
    end(report.moved ? *source_ : *destination_);
    if (report.moved) source_ = std::move(destination_);
    destination_.reset();
    return report;
  }

  Result<void> tell_source(const qmp::Command& command) {
    auto done = ask(*source_, command);
    return done ? Result<void>{} : tl::unexpected(done.error());
  }
  Result<void> kill_destination() {
    return destination_ ? signal_process(destination_->process, SIGKILL)
                        : failure(ErrorKind::InvalidInput, "nothing moves");
  }
  const std::string& server() const { return source_->server; }
  Result<std::string> status() {
    auto answer = ask(*source_, qmp::query_status());
    if (!answer) return tl::unexpected(answer.error());
    return answer->text("status").value_or("");
  }

 private:
  std::vector<std::string> command_line(const Instance& one, const std::string& mac, const std::string& address,
                                        bool incoming) const {
    const std::string base = fmt::format("{}/qmp/{}", lab_.folder(), one.server);
    std::vector<std::string> words{kProgram,
                                   "-name",
                                   "vm1-" + one.server,
                                   "-nodefaults",
                                   "-no-user-config",
                                   "-display",
                                   "none",
                                   "-machine",
                                   "pc",
                                   "-accel",
                                   "tcg,thread=multi",
                                   "-cpu",
                                   "qemu64",
                                   "-m",
                                   "96",
                                   "-smp",
                                   "1",
                                   "-kernel",
                                   image_.kernel,
                                   "-initrd",
                                   image_.initrd,
                                   "-append",
                                   fmt::format("{} lab.address={}/24 lab.gateway=10.1.1.1", kKernelOptions, address),
                                   "-netdev",
                                   fmt::format("tap,id=n0,ifname={},script=no,downscript=no,vhost=off", one.port),
                                   "-device",
                                   fmt::format("virtio-net-pci,netdev=n0,mac={},romfile=", mac),
                                   "-serial",
                                   "file:" + one.serial,
                                   "-qmp",
                                   fmt::format("unix:{}-{}.lab,server=on,wait=off", base, one.port)};
    if (gate_) words.insert(words.end(), {"-qmp", fmt::format("unix:{}-vm1.gate,server=on,wait=off", base)});
    if (incoming) words.insert(words.end(), {"-incoming", "defer"});
    return words;
  }

  Result<void> start(const std::string& server, const std::string& port, bool incoming) {
    auto vm = lab_.find_vm("vm1");
    if (!vm) return tl::unexpected(vm.error());
    auto one = std::make_unique<Instance>();
    one->server = server;
    one->port = port;
    one->serial = fmt::format("{}/qmp/{}-{}.serial", lab_.folder(), server, port);
    one->log = fmt::format("{}/qmp/{}-{}.log", lab_.folder(), server, port);
    std::error_code ignored;
    fs::remove(one->serial, ignored);
    auto process =
        start_daemon(command_line(*one, vm->mac, vm->address, incoming), lab_.namespace_of(server), one->log);
    if (!process) return tl::unexpected(process.error());
    one->process = *process;
    one->client = qmp::make_client(fmt::format("{}/qmp/{}-{}.lab", lab_.folder(), server, port), loop_);
    one->client->start({.on_event = [this, raw = one.get()](const qmp::Event& event) { take(*raw, event); }});
    started_ = std::move(one);
    const auto ready = [this] { return started_->client->connected() || !is_running(started_->process); };
    if (loop_.run_until(ready, kAnswerDeadline) && started_->client->connected()) return {};
    return failure(ErrorKind::Failed, fmt::format("QEMU does not start: {}", text_of(started_->log)));
  }

  Result<void> prepare(const std::string& server, const QemuMoveOptions& options) {
    if (server == source_->server && options.port == source_->port) {
      return failure(ErrorKind::InvalidInput, fmt::format("vm1 is on {} already", server));
    }
    if (auto started = start(server, options.port, true); !started) return started;
    destination_ = std::move(started_);
    // With a gate these are its to set.
    std::vector<std::string> capabilities{"events"};
    if (options.hold) capabilities.push_back("pause-before-switchover");
    for (auto* one : {source_.get(), destination_.get()}) {
      if (gate_) break;
      if (auto set = ask(*one, qmp::set_capabilities(capabilities)); !set) return tl::unexpected(set.error());
    }
    return {};
  }

  Result<qmp::Fields> ask(Instance& one, const qmp::Command& command) {
    std::optional<Result<qmp::Fields>> answer;
    one.client->execute(command, [&](Result<qmp::Fields> got) { answer = std::move(got); });
    (void)loop_.run_until([&] { return answer.has_value(); }, std::chrono::seconds(20));  // the client's own is shorter
    return answer ? *answer : failure(ErrorKind::Retry, command.name + " is not answered");
  }

  void take(Instance& one, const qmp::Event& event) {
    const auto status = event.data.text("status");
    one.events.push_back({event.microseconds, status ? event.name + " " + *status : event.name});
    if (&one != destination_.get() || event.name != "RESUME") return;
    followed_ = follow(destination_->server, source_->server);
  }

  // The fabric does.
  Result<void> follow(const std::string& here, const std::string& there) {
    if (here == there) return {};
    if (auto done = lab_.announce("vm1", here); !done) return done;
    return lab_.withdraw("vm1", there);
  }

  // Until the source has completed and the destination runs, or the source has it back.
  Result<void> watch(const QemuMoveOptions& options) {
    const std::vector<std::pair<At, std::string>> points{
        {At::Active, "MIGRATION active"}, {At::Paused, "MIGRATION pre-switchover"}, {At::GoneOn, "MIGRATION device"}};
    std::vector<bool> reached(points.size(), false);
    const Instant end = loop_.now() + options.deadline;
    while (!over()) {
      if (loop_.now() >= end) return failure(ErrorKind::Retry, "");
      for (std::size_t i = 0; i < points.size(); ++i) {
        if (reached[i] || !source_->saw(points[i].second)) continue;
        reached[i] = true;
        if (options.on_reaching) options.on_reaching(points[i].first);
      }
      const std::size_t seen = source_->events.size() + destination_->events.size();
      (void)loop_.run_until([&] { return source_->events.size() + destination_->events.size() != seen; },
                            milliseconds(20));
    }
    return followed_;
  }

  bool over() const {
    if (source_->saw("MIGRATION completed") && destination_->saw("RESUME")) return true;
    if (!source_->saw("MIGRATION cancelled") && !source_->saw("MIGRATION failed")) return false;
    const auto* stopped = source_->last("STOP");
    return stopped == nullptr || source_->last("RESUME") > stopped;
  }

  QemuMove summary() const {
    QemuMove made;
    made.moved = destination_->saw("RESUME");
    const auto begin = source_->events.empty() ? 0 : source_->events.front().microseconds;
    const auto since = [begin](std::int64_t at) { return static_cast<double>(at - begin) / 1000; };
    for (const auto* one : {source_.get(), destination_.get()}) {
      for (const auto& event : one->events) {
        made.timeline.push_back(
            {since(event.microseconds), (one == source_.get() ? "source " : "destination ") + event.what});
        made.total_ms = std::max(made.total_ms, since(event.microseconds));
        const std::string status = event.what.rfind("MIGRATION ", 0) == 0 ? event.what.substr(10) : "";
        if (one == source_.get() && !status.empty()) made.status = status;
      }
    }
    std::stable_sort(made.timeline.begin(), made.timeline.end(),
                     [](const auto& a, const auto& b) { return a.milliseconds < b.milliseconds; });
    const auto between = [](const Instance::Happened* a, const Instance::Happened* b) {
      return a == nullptr || b == nullptr ? 0 : static_cast<double>(b->microseconds - a->microseconds) / 1000;
    };
    made.gate_ms = between(source_->last("MIGRATION pre-switchover"), source_->last("MIGRATION device"));
    made.not_running_ms = between(source_->last("STOP"), (made.moved ? destination_ : source_)->last("RESUME"));
    return made;
  }

  static void end(Instance& one) {
    one.client.reset();
    (void)signal_process(one.process, SIGKILL);
    (void)stop_process(one.process);
  }

  Lab& lab_;
  GuestImage image_;
  bool gate_;
  Loop loop_;
  std::unique_ptr<Instance> started_;
  std::unique_ptr<Instance> source_;  // where it is
  std::unique_ptr<Instance> destination_;
  Result<void> followed_;
  int moves_ = 0;
};

QemuGuest::QemuGuest(std::unique_ptr<Implementation> implementation) : implementation_(std::move(implementation)) {}
QemuGuest::QemuGuest(QemuGuest&&) noexcept = default;
QemuGuest& QemuGuest::operator=(QemuGuest&&) noexcept = default;
QemuGuest::~QemuGuest() = default;

Result<QemuGuest> QemuGuest::boot(Lab& lab, const GuestImage& image, const Options& options) {
  auto made = std::make_unique<Implementation>(lab, image, options.gate);
  if (auto booted = made->boot(options.server, options.port); !booted) return tl::unexpected(booted.error());
  return QemuGuest(std::move(made));
}

Result<QemuMove> QemuGuest::move(const std::string& server, const QemuMoveOptions& options) {
  return implementation_->move(server, options);
}
Result<void> QemuGuest::cancel() { return implementation_->tell_source(qmp::migrate_cancel()); }
Result<void> QemuGuest::go_on() { return implementation_->tell_source(qmp::migrate_continue()); }
Result<void> QemuGuest::kill_destination() { return implementation_->kill_destination(); }
const std::string& QemuGuest::server() const { return implementation_->server(); }
Result<std::string> QemuGuest::status() { return implementation_->status(); }

}  // namespace sami::lab
