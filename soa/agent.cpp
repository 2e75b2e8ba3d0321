#include "soa/agent.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "runtime/config.h"

namespace sami::soa {

namespace event = protocol::soa_event;
namespace if_m_a = ::sami::if_m_a::v1;
namespace common = ::sami::common::v1;

namespace {

constexpr std::string_view kSubjectKey = "subject/";
constexpr std::size_t kReplyBytes = 192 * 1024;  // of records in one StateReply; one record may come on top

std::string_view short_name(const std::string& enumerator, std::string_view prefix) {
  return std::string_view(enumerator).substr(enumerator.starts_with(prefix) ? prefix.size() : 0);
}

std::string line_of(const protocol::TransferView& view) {
  const auto& status = view.status;
  return fmt::format("{}/{} {} as {} {}: generation {}, round {}, {} records, {} installed, {} adopted{}{}",
                     status.transfer().migration_id(), status.transfer().transfer(), status.transfer().subject_id(),
                     short_name(if_m_a::TransferRole_Name(status.role()), "TRANSFER_ROLE_"),
                     short_name(if_m_a::TransferState_Name(status.state()), "TRANSFER_STATE_"), status.generation(),
                     view.round, view.records, view.installed, view.adopted,
                     view.resyncs == 0 ? "" : fmt::format(", {} resyncs", view.resyncs),
                     view.barrier ? ", barrier" : "");
}

const common::Subject* subject_of(const if_m_a::MasterMessage& message) {
  if (message.has_get_ready()) return &message.get_ready().subject();
  if (message.has_upload_request()) return &message.upload_request().subject();
  return nullptr;
}

// Runs on the worker thread.
Result<std::vector<Agent::ClassState>> read_all(const std::vector<state::Driver*>& drivers, const state::Scope& scope) {
  std::vector<Agent::ClassState> all;
  for (state::Driver* driver : drivers) {
    auto records = driver->snapshot(scope);
    if (!records) return tl::unexpected(records.error());
    auto& state = all.emplace_back(Agent::ClassState{driver->profile().state_class, {}});
    for (auto& record : *records) {
      auto& shown = state.records.emplace_back();
      shown.set_key(std::move(record.key));
      shown.set_body(std::move(record.body));
    }
  }
  return all;
}

}  // namespace

Agent::Agent(AgentConfig config, AgentPorts ports)
    : config_(std::move(config)),
      ports_(std::move(ports)),
      incarnation_(std::make_shared<std::atomic<std::uint64_t>>(0)),
      worker_("drivers", config_.worker_queue, ports_.loop) {
  config_.machine.drivers.clear();
  for (const state::Driver* driver : ports_.drivers) config_.machine.drivers.push_back(driver->profile());
}

Agent::~Agent() { ports_.loop.cancel(timer_); }

void Agent::start() {
  rebuild();
  ports_.client.start({.on_connected =
                           [this] {
                             connected_ = true;
                             ++counters_["connections"];
                             ports_.log.info("connected to the master");
                             apply(event::Connected{});
                           },
                       .on_message = [this](if_m_a::MasterMessage message) { take(std::move(message)); },
                       .on_disconnected =
                           [this](const std::string& reason) {
                             if (connected_ || reason != last_error_) {
                               ports_.log.warning("not connected to the master", {{"reason", reason}});
                             }
                             last_error_ = reason;
                             if (!connected_) return;
                             connected_ = false;
                             apply(event::Disconnected{});
                           }});
}

// The machine from what the journal holds; on failure again later.
void Agent::rebuild() {
  rebuild_at_ = Instant::never();
  auto image = ports_.journal.load();
  if (!image) return fail(image.error());
  subjects_.clear();
  for (auto entry = image->lower_bound(std::string(kSubjectKey));
       entry != image->end() && entry->first.starts_with(kSubjectKey);) {
    common::Subject subject;
    if (subject.ParseFromString(entry->second)) subjects_[subject.id()] = std::move(subject);
    entry = image->erase(entry);
  }
  ++*incarnation_;
  if (failures_ > 1 && !emergency_) emergency_.emplace(config_.machine, *image);
  soa_.emplace(config_.machine, *image);
  if (connected_) {
    apply(event::Connected{});
  } else {
    apply(event::Tick{});
  }
}

void Agent::fail(const Error& error) {
  ++failures_;
  ++counters_["journal_failures"];
  last_error_ = "the journal failed: " + error.message;
  const Duration delay =
      std::min(config_.rebuild_delay * (1U << std::min(failures_ - 1, 10U)), config_.maximum_rebuild_delay);
  ports_.log.error("the journal failed; starting again from what it holds",
                   {Field(error), {"again_in_ms", delay / std::chrono::milliseconds(1)}});
  soa_.reset();
  ++*incarnation_;
  rebuild_at_ = ports_.loop.now() + delay;
  if (emergency_) {
    for (const auto& safe : emergency_->step(ports_.loop.now(), event::JournalUnavailable{}).calls) call(safe);
  }
  ports_.client.reconnect(last_error_);
  arm();
}

void Agent::tick() {
  timer_ = 0;
  if (rebuild_at_ <= ports_.loop.now()) return rebuild();
  apply(event::Tick{});
}

void Agent::arm() {
  ports_.loop.cancel(timer_);
  const Instant next = std::min(rebuild_at_, soa_ ? soa_->next_deadline() : Instant::never());
  timer_ = next == Instant::never() ? 0 : ports_.loop.call_at(next, [this] { tick(); });
}

bool Agent::apply(protocol::SoaEvent event, std::vector<JournalWrite> also) {
  if (!soa_) return false;
  protocol::SoaStep step = soa_->step(ports_.loop.now(), std::move(event));
  std::vector<JournalWrite> writes = std::move(step.journal);
  writes.insert(writes.end(), std::make_move_iterator(also.begin()), std::make_move_iterator(also.end()));
  if (!writes.empty()) {
    if (auto committed = ports_.journal.commit(writes); !committed) {
      fail(committed.error());
      return false;
    }
    failures_ = 0;
    emergency_.reset();
  }
  for (const auto& message : step.messages) {
    if (message.has_resync()) ++counters_["resyncs"];
    if (message.has_upload_state()) ++counters_["chunks_sent"];
    ports_.client.send(message);
  }
  for (const auto& driver_call : step.calls) call(driver_call);
  audit(step.audit);
  arm();
  return true;
}

void Agent::call(const protocol::DriverCall& call) {
  const std::uint64_t mine = incarnation_->load();
  state::Driver* target = driver(call.state_class);
  ++counters_["driver_calls"];
  const auto refuse = [&](ErrorKind kind, std::string why) {
    protocol::DriverReply refusal{call.id, Error{kind, std::move(why)}};
    ports_.loop.post([this, mine, refusal = std::move(refusal)] { reply(mine, refusal); });
  };
  if (target == nullptr) {
    return refuse(ErrorKind::Unsupported, "this host has no driver for class " + call.state_class);
  }
  auto submitted = worker_.submit(
      [call, target, mine, incarnation = incarnation_, &clock = ports_.clock, log = ports_.log] {
        if (incarnation->load() != mine)
          return protocol::DriverReply{call.id, Error{ErrorKind::Retry, "the agent started again"}};
        const Instant begun = clock.now();
        protocol::DriverReply done = protocol::perform(call, *target);
        log.debug("driver call", {{"call", to_string(call)},
                                  {"class", call.state_class},
                                  {"migration", call.scope->migration_id},
                                  {"transfer", call.scope->transfer},
                                  {"microseconds", (clock.now() - begun).count() / 1000}});
        return done;
      },
      [this, mine](protocol::DriverReply answer) { reply(mine, std::move(answer)); });
  if (!submitted) refuse(submitted.error().kind, submitted.error().message);
}

void Agent::reply(std::uint64_t incarnation, protocol::DriverReply reply) {
  if (incarnation != incarnation_->load()) return;
  if (const auto* error = std::get_if<Error>(&reply.result)) {
    ++counters_["driver_errors"];
    ports_.log.warning("a driver call failed", {Field(*error)});
  }
  apply(event::FromDriver{std::move(reply)});
}

void Agent::take(if_m_a::MasterMessage message) {
  if (message.has_refused()) {
    last_error_ = "refused by the master: " + message.refused().reason();
    ports_.log.error("refused by the master", {{"reason", message.refused().reason()}});
  }
  if (message.has_download_state()) ++counters_["chunks_received"];
  if (message.has_state_query()) return answer(message.state_query());
  auto subject = remember(message);
  apply(event::FromMaster{std::move(message)}, std::move(subject));
}

// For `sami state show` when the master cannot be asked.
std::vector<JournalWrite> Agent::remember(const if_m_a::MasterMessage& message) {
  const common::Subject* subject = subject_of(message);
  if (subject == nullptr || subject->id().empty() || subject->id().size() > 128) return {};
  const std::string bytes = subject->SerializeAsString();
  const auto known = subjects_.find(subject->id());
  if (known != subjects_.end() && known->second.SerializeAsString() == bytes) return {};
  std::vector<JournalWrite> writes = {{std::string(kSubjectKey) + subject->id(), bytes}};
  if (known == subjects_.end() && subjects_.size() >= config_.remembered_subjects && !subjects_.empty()) {
    writes.push_back({std::string(kSubjectKey) + subjects_.begin()->first, std::nullopt});
    subjects_.erase(subjects_.begin());
  }
  subjects_[subject->id()] = *subject;
  return writes;
}

void Agent::answer(const if_m_a::StateQuery& query) {
  ++counters_["state_queries"];
  if (queries_ >= config_.concurrent_queries) {
    return send_state(query.query_id(),
                      failure(ErrorKind::Retry, fmt::format("{} state queries are being answered; ask "
                                                            "again later",
                                                            queries_)));
  }
  ++queries_;
  read_state(query.subject(), query.context(), query.state_class(),
             [this, id = query.query_id()](const Result<std::vector<ClassState>>& found) {
               --queries_;
               send_state(id, found);
             });
}

void Agent::send_state(std::uint64_t query_id, const Result<std::vector<ClassState>>& found) {
  std::size_t total = 0;
  if_m_a::AgentMessage message;
  const auto flush = [&](const std::string& error, bool last) {
    message.mutable_state_reply()->set_query_id(query_id);
    message.mutable_state_reply()->set_error(error);
    message.mutable_state_reply()->set_last(last);
    ports_.client.send(message);
    message.Clear();
  };
  if (!found) return flush(found.error().message, true);
  for (const auto& state : *found) {
    std::size_t bytes = 0;
    for (const auto& record : state.records) {
      const std::size_t size = record.ByteSizeLong();
      if (total + size > config_.query_bytes) {
        return flush(fmt::format("the state of the subject is larger than {} octets; the rest is left out. Ask on the "
                                 "host, or for one class and context",
                                 config_.query_bytes),
                     true);
      }
      message.mutable_state_reply()->set_state_class(state.state_class);
      *message.mutable_state_reply()->add_records() = record;
      total += size;
      bytes += size;
      if (bytes < kReplyBytes) continue;
      flush("", false);
      bytes = 0;
    }
    if (bytes > 0) flush("", false);
  }
  flush("", true);
}

void Agent::read_state(const common::Subject& subject, const std::string& context, const std::string& state_class,
                       StateReady done) {
  std::vector<state::Driver*> drivers = ports_.drivers;
  if (!state_class.empty()) {
    drivers = {driver(state_class)};
    if (drivers.front() == nullptr) {
      return done(
          failure(ErrorKind::InvalidInput, fmt::format("{} has no state class {}", config_.machine.host, state_class)));
    }
  }
  if (subject.interfaces().empty()) {
    return done(failure(ErrorKind::InvalidInput, fmt::format("subject \"{}\" has no interfaces", subject.id())));
  }
  state::Scope scope;
  scope.subject = subject;
  scope.context = context;
  auto shared = std::make_shared<StateReady>(std::move(done));
  auto submitted = worker_.submit([drivers, scope] { return read_all(drivers, scope); },
                                  [shared](Result<std::vector<ClassState>> found) { (*shared)(std::move(found)); });
  if (!submitted) (*shared)(tl::unexpected(submitted.error()));
}

Result<common::Subject> Agent::find_subject(const std::string& id_or_address) const {
  const auto known = subjects_.find(id_or_address);
  if (known != subjects_.end()) return known->second;
  const auto address = parse_address(id_or_address);
  if (!address) {
    return failure(ErrorKind::InvalidInput,
                   fmt::format("\"{}\" is no subject that the master has spoken of ({} are known), and "
                               "no address",
                               id_or_address, subjects_.size()),
                   ENOENT);
  }
  common::Subject subject;
  subject.set_id(id_or_address);
  std::set<std::string> networks;
  for (const auto& context : config_.machine.profile.contexts()) {
    for (const auto& [network, zone] : context.vn_zone()) networks.insert(network);
  }
  for (const auto& network : networks) {
    auto* interface = subject.add_interfaces();
    interface->set_vn_name(network);
    interface->add_addresses(*address);
  }
  return subject;
}

void Agent::audit(const std::vector<protocol::AuditEntry>& entries) {
  if (entries.empty()) return;
  std::vector<AuditRecord> records;
  for (const auto& entry : entries) {
    ports_.log.info(entry.event,
                    {{"migration", entry.migration_id}, {"subject", entry.subject_id}, {"detail", entry.detail}});
    records.push_back({ports_.clock.wall(), entry.migration_id, entry.subject_id, entry.event, entry.detail});
  }
  if (auto kept = ports_.audit.append(records); !kept) {
    ++counters_["audit_failures"];
    ports_.log.error("the audit trail cannot be written", {Field(kept.error())});
  }
}

state::Driver* Agent::driver(const std::string& state_class) const {
  for (state::Driver* candidate : ports_.drivers) {
    if (candidate->profile().state_class == state_class) return candidate;
  }
  return nullptr;
}

Agent::Status Agent::status() const {
  Status status;
  status.connected = connected_ && soa_ && soa_->authorized();
  status.last_error = last_error_;
  status.counters = counters_;
  status.counters["driver_calls_pending"] = worker_.pending();
  if (!soa_) status.lines.push_back("waiting for the journal: " + last_error_);
  if (soa_) {
    const auto transfers = soa_->transfers();
    status.counters["open_transfers"] = transfers.size();
    for (const auto& view : transfers) status.lines.push_back(line_of(view));
  }
  return status;
}

}  // namespace sami::soa
