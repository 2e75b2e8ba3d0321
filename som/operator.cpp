#include "som/operator.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "som/views.h"

namespace sami::som {
namespace {

constexpr std::size_t kMaximumWatches = 1'000;
constexpr std::size_t kMaximumQueries = 256;
constexpr std::uint32_t kMaximumAuditLines = 10'000;

std::uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

Answer<api::Empty> emptied(const Answer<void>& answer) {
  if (!answer) return tl::unexpected<Problem>(answer.error());
  return api::Empty{};
}

tl::unexpected<Problem> no_migration(const std::string& id) {
  return problem(ProblemKind::NotFound, "there is no migration '" + id + "'; `sami migration list` shows them");
}

}  // namespace

Operator::Operator(Shell& shell, Loop& loop, Duration deadline)
    : shell_(shell),
      loop_(loop),
      deadline_(deadline),
      paths_(loop, kMaximumQueries, deadline),
      moves_(loop, kMaximumQueries, deadline),
      states_(loop, kMaximumQueries, deadline) {
  shell_.observe(this);
}

Operator::~Operator() {
  shell_.observe(nullptr);
  for (const auto& [id, start] : starts_) loop_.cancel(start.timer);
}

Answer<const protocol::Som*> Operator::machine() const {
  if (const auto* machine = shell_.machine()) return machine;
  return problem(ProblemKind::Unavailable, "the master's journal cannot be used: " + shell_.last_error());
}

Answer<protocol::SubjectView> Operator::subject(const std::string& id) const {
  const auto running = machine();
  if (!running) return tl::unexpected<Problem>(running.error());
  auto subjects = (*running)->subjects();
  const auto found =
      std::find_if(subjects.begin(), subjects.end(), [&](const auto& each) { return each.record.id() == id; });
  if (found == subjects.end())
    return problem(ProblemKind::NotFound, "there is no VM '" + id + "'; `sami vm list` shows them");
  return std::move(*found);
}

Answer<api::StatusReply> Operator::status() const {
  api::StatusReply reply;
  reply.set_daemon("som");
  reply.set_name(shell_.settings().name);
  reply.set_version(SAMI_VERSION);
  reply.set_last_error(shell_.last_error());
  auto& counters = *reply.mutable_counters();
  const Counters& done = shell_.counters();
  counters["chunks_relayed"] = done.chunks_relayed;
  counters["bytes_relayed"] = done.bytes_relayed;
  counters["chunks_left_out"] = done.chunks_left_out;
  counters["messages_received"] = done.messages_received;
  counters["messages_refused"] = done.messages_refused;
  counters["sessions_refused"] = done.sessions_refused;
  counters["sessions_replaced"] = done.sessions_replaced;
  counters["journal_commits"] = done.journal_commits;
  counters["journal_failures"] = done.journal_failures;
  counters["resyncs"] = done.resyncs;
  counters["migrations_done"] = done.migrations_done;
  counters["migrations_done_with_loss"] = done.migrations_done_with_loss;
  counters["migrations_rolled_back"] = done.migrations_rolled_back;
  counters["resident_bytes"] = resident_bytes();
  counters["tdes_connected"] = shell_.connected_tdes().size();
  const auto* machine = shell_.machine();
  if (machine == nullptr) {
    reply.add_lines("the journal cannot be used: no migration advances until it can");
    return reply;
  }
  std::uint64_t open = 0, connected = 0;
  for (const auto& host : machine->hosts()) connected += host.connected ? 1 : 0;
  for (const auto* migration : machine->migrations()) {
    if (protocol::is_final(migration->state())) continue;
    ++open;
    if (open <= 100)
      reply.add_lines(migration->id() + "  " + std::string(protocol::to_string(migration->state())) + "  VM " +
                      migration->subject().id());
  }
  counters["agents_connected"] = connected;
  counters["migrations_open"] = open;
  return reply;
}

Answer<api::ListHostsReply> Operator::hosts() const {
  const auto running = machine();
  if (!running) return tl::unexpected<Problem>(running.error());
  api::ListHostsReply reply;
  for (const auto& host : (*running)->hosts()) *reply.add_hosts() = view(host);
  return reply;
}

Answer<api::ListVmsReply> Operator::vms() const {
  const auto running = machine();
  if (!running) return tl::unexpected<Problem>(running.error());
  api::ListVmsReply reply;
  for (const auto& each : (*running)->subjects()) *reply.add_vms() = view(each);
  return reply;
}

Answer<api::ListMigrationsReply> Operator::migrations(const api::ListMigrationsRequest& request) const {
  const auto running = machine();
  if (!running) return tl::unexpected<Problem>(running.error());
  api::ListMigrationsReply reply;
  for (const auto* each : (*running)->migrations()) {
    if (!request.subject_id().empty() && each->subject().id() != request.subject_id()) continue;
    if (request.open_only() && protocol::is_final(each->state())) continue;
    auto& listed = *reply.add_migrations();
    listed = view(*each);
    if (listed.timeline_size() > 1) listed.mutable_timeline()->DeleteSubrange(1, listed.timeline_size() - 1);
    for (auto& transfer : *listed.mutable_transfers())
      for (auto& feedback : *transfer.mutable_feedback()) feedback.clear_findings();
  }
  return reply;
}

Answer<api::Migration> Operator::migration(const std::string& id) const {
  const auto running = machine();
  if (!running) return tl::unexpected<Problem>(running.error());
  const auto* found = (*running)->find(id);
  if (found == nullptr) return no_migration(id);
  return view(*found);
}

Answer<api::AuditReply> Operator::audit(const api::AuditRequest& request) {
  AuditQuery query{request.migration_id(), request.subject_id(), request.from_wall_microseconds(),
                   request.to_wall_microseconds(), request.limit() == 0 ? 1000 : request.limit()};
  query.limit = std::min(query.limit, kMaximumAuditLines);
  if (query.to != 0 && query.to < query.from)
    return problem(ProblemKind::InvalidArgument, "the time 'to' is before 'from'");
  const auto records = shell_.audit().query(query);
  if (!records) return problem(ProblemKind::Unavailable, "the audit trail cannot be read: " + records.error().message);
  api::AuditReply reply;
  for (const auto& record : *records) {
    auto& line = *reply.add_lines();
    line.set_wall_microseconds(record.wall);
    line.set_migration_id(record.migration_id);
    line.set_subject_id(record.subject_id);
    line.set_event(record.event);
    line.set_detail(record.detail);
  }
  return reply;
}

Answer<api::Empty> Operator::drain(const api::DrainHostRequest& request, const std::string& actor) {
  const auto id = shell_.next_id();
  return emptied(shell_.command(id, protocol::som_event::Drain{id, request.host(), request.on(), actor}, actor,
                                (request.on() ? "drain " : "end the drain of ") + request.host(), {}));
}

Answer<api::Empty> Operator::abort(const api::MigrationRequest& request, const std::string& actor) {
  if (auto known = migration(request.id()); !known) return tl::unexpected<Problem>(known.error());
  const auto id = shell_.next_id();
  return emptied(shell_.command(id, protocol::som_event::Abort{id, request.id(), actor, request.reason()}, actor,
                                "abort" + (request.reason().empty() ? "" : ": " + request.reason()), request.id()));
}

Answer<api::Empty> Operator::force(const api::MigrationRequest& request, const std::string& actor) {
  if (auto known = migration(request.id()); !known) return tl::unexpected<Problem>(known.error());
  const auto id = shell_.next_id();
  return emptied(
      shell_.command(id, protocol::som_event::Force{id, request.id(), actor}, actor, "force", request.id()));
}

Answer<api::Empty> Operator::resolve(const api::ResolveRequest& request, const std::string& actor) {
  if (request.outcome() != common::v1::OUTCOME_AT_SOURCE && request.outcome() != common::v1::OUTCOME_AT_DESTINATION)
    return problem(ProblemKind::InvalidArgument, "outcome: expected AT_SOURCE or AT_DESTINATION");
  if (auto known = migration(request.id()); !known) return tl::unexpected<Problem>(known.error());
  const auto id = shell_.next_id();
  return emptied(shell_.command(id, protocol::som_event::Resolve{id, request.id(), request.outcome(), actor}, actor,
                                "resolve: " + common::v1::Outcome_Name(request.outcome()), request.id()));
}

std::uint64_t Operator::watch(const std::string& migration_id, Watcher each) {
  if (watches_.size() >= kMaximumWatches) {
    each(problem(ProblemKind::ResourceExhausted, "too many watches at once"));
    return 0;
  }
  const auto id = shell_.next_id();
  watches_[id] = {migration_id, std::move(each)};
  tell(id);
  return id;
}

void Operator::unwatch(std::uint64_t watch) { watches_.erase(watch); }

void Operator::tell(std::uint64_t watch) {
  const auto found = watches_.find(watch);
  if (found == watches_.end()) return;
  auto answer = migration(found->second.migration_id);
  const Watcher each = found->second.each;
  if (!answer || answer->final()) watches_.erase(found);
  each(std::move(answer));
}

void Operator::on_changed(const std::string& migration_id) {
  std::vector<std::uint64_t> concerned;
  for (const auto& [id, watch] : watches_)
    if (watch.migration_id == migration_id) concerned.push_back(id);
  for (const auto id : concerned) tell(id);
  std::vector<std::uint64_t> waiting;
  for (const auto& [id, start] : starts_) waiting.push_back(id);
  for (const auto id : waiting) announced(id);
}

void Operator::on_restarted() {
  std::vector<std::uint64_t> all;
  for (const auto& [id, watch] : watches_) all.push_back(id);
  for (const auto id : all) tell(id);
}

void Operator::on_agent_gone(const std::string& host) { states_.peer_gone(host); }

}  // namespace sami::som
