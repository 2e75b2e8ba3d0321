#include <fmt/format.h>

#include <algorithm>

#include "som/operator.h"
#include "som/plan.h"

namespace sami::som {
namespace {

constexpr std::size_t kMaximumRefused = 64;

tl::unexpected<Problem> too_many() {
  return problem(ProblemKind::ResourceExhausted, "too many questions are waiting for answers; try again");
}

template <typename Repeated>
auto listed(const Repeated& repeated) {
  return std::vector<typename Repeated::value_type>(repeated.begin(), repeated.end());
}

}  // namespace

Answer<std::string> Operator::tde_of(const std::string& subject_id) const {
  if (subject_id.empty()) return problem(ProblemKind::InvalidArgument, "a VM is needed, found an empty name");
  const auto found = subject(subject_id);
  if (!found) return tl::unexpected<Problem>(found.error());
  const auto connected = shell_.connected_tdes();
  if (std::find(connected.begin(), connected.end(), found->tde) == connected.end())
    return problem(ProblemKind::Unavailable, fmt::format("the TDE of {}{}{} is not connected", subject_id,
                                                         found->tde.empty() ? "" : ", ", found->tde));
  return found->tde;
}

void Operator::query_path(const std::string& tde, const std::string& subject_id, const std::string& destination,
                          Pending<if_m_t::v1::PathReply>::Handler handler) {
  if (paths_.full()) return handler(too_many());
  const auto id = shell_.next_id();
  if_m_t::v1::MasterMessage message;
  auto& query = *message.mutable_path_query();
  query.set_query_id(id);
  query.set_subject_id(subject_id);
  query.set_destination_place(destination);
  paths_.add(id, tde, [tde, handler = std::move(handler)](Answer<if_m_t::v1::PathReply> reply) {
    if (reply && !reply->error().empty())
      return handler(problem(ProblemKind::FailedPrecondition, fmt::format("TDE {}: {}", tde, reply->error())));
    handler(std::move(reply));
  });
  if (!shell_.send_to_tde(tde, message)) paths_.peer_gone(tde);
}

void Operator::plan(const api::PlanRequest& request, Reply<api::PlanReply> reply) {
  const auto tde = tde_of(request.subject_id());
  if (!tde) return reply(tl::unexpected<Problem>(tde.error()));
  if (request.destination_place().empty())
    return reply(problem(ProblemKind::InvalidArgument, "a server to move to is needed, found an empty name"));
  query_path(*tde, request.subject_id(), request.destination_place(),
             [this, subject_id = request.subject_id(), reply = std::move(reply)](Answer<if_m_t::v1::PathReply> path) {
               if (!path) return reply(tl::unexpected<Problem>(path.error()));
               const auto running = machine();
               if (!running) return reply(tl::unexpected<Problem>(running.error()));
               api::PlanReply out;
               *out.mutable_subject() = path->subject();
               out.set_source_place(path->source_place());
               *out.mutable_transfers() = path->transfers();
               for (auto& finding : findings(path->subject(), listed(path->transfers()),
                                             shell_.settings().machine.classes, (*running)->hosts()))
                 *out.add_findings() = std::move(finding);
               const auto known = subject(subject_id);
               if (known && !known->record.open_migration().empty()) {
                 auto& busy = *out.add_findings();
                 busy.set_code(common::v1::FINDING_BUSY);
                 busy.set_detail("migration " + known->record.open_migration() + " of the VM has not ended");
               }
               reply(std::move(out));
             });
}

void Operator::topology(const api::TopologyRequest& request, Reply<api::TopologyReply> reply) {
  if (request.subject_id().empty()) return whole_topology(std::move(reply));
  const auto tde = tde_of(request.subject_id());
  if (!tde) return reply(tl::unexpected<Problem>(tde.error()));
  query_path(*tde, request.subject_id(), request.destination_place(),
             [reply = std::move(reply)](Answer<if_m_t::v1::PathReply> path) {
               if (!path) return reply(tl::unexpected<Problem>(path.error()));
               api::TopologyReply out;
               *out.mutable_lines() = path->topology();
               *out.mutable_transfers() = path->transfers();
               reply(std::move(out));
             });
}

// What every connected TDE knows, one after the other.
void Operator::whole_topology(Reply<api::TopologyReply> reply) {
  const auto tdes = shell_.connected_tdes();
  if (tdes.empty()) return reply(problem(ProblemKind::Unavailable, "no TDE is connected"));
  struct Gathering {
    std::size_t missing = 0;
    api::TopologyReply reply;
  };
  auto gathering = std::make_shared<Gathering>();
  gathering->missing = tdes.size();
  for (const auto& tde : tdes)
    query_path(tde, "", "", [gathering, tde, reply](Answer<if_m_t::v1::PathReply> path) {
      if (path)
        for (const auto& line : path->topology()) gathering->reply.add_lines(line);
      else
        gathering->reply.add_lines(path.error().message);
      if (--gathering->missing == 0) reply(std::move(gathering->reply));
    });
}

void Operator::start(const api::PlanRequest& request, const std::string& actor, Reply<api::StartReply> reply) {
  const std::string what = fmt::format("{}: start a move of {} to {}{}", actor, request.subject_id(),
                                       request.destination_place(), request.force() ? ", forced" : "");
  auto audited = [this, what, vm = request.subject_id(), reply = std::move(reply)](Answer<api::StartReply> answer) {
    shell_.audit().add("operator", answer ? what : what + ": refused: " + answer.error().message,
                       answer ? answer->migration_id() : "", vm);
    reply(std::move(answer));
  };
  const auto tde = tde_of(request.subject_id());
  if (!tde) return audited(tl::unexpected<Problem>(tde.error()));
  if (request.destination_place().empty())
    return audited(problem(ProblemKind::InvalidArgument, "a server to move to is needed, found an empty name"));
  if (moves_.full()) return audited(too_many());
  const auto id = shell_.next_id();
  if_m_t::v1::MasterMessage message;
  auto& move = *message.mutable_move_request();
  move.set_query_id(id);
  move.set_subject_id(request.subject_id());
  move.set_destination_place(request.destination_place());
  move.set_force(request.force());
  move.set_actor(actor);
  moves_.add(id, *tde, [this, tde = *tde, audited = std::move(audited)](Answer<if_m_t::v1::MoveAnswer> answer) {
    if (!answer) return audited(tl::unexpected<Problem>(answer.error()));
    begun(tde, *answer, audited);
  });
  if (!shell_.send_to_tde(*tde, message)) moves_.peer_gone(*tde);
}

void Operator::begun(const std::string& tde, const if_m_t::v1::MoveAnswer& answer, Reply<api::StartReply> reply) {
  if (!answer.error().empty())
    return reply(problem(ProblemKind::FailedPrecondition, fmt::format("TDE {}: {}", tde, answer.error())));
  const auto id = shell_.next_id();
  const auto timer = loop_.call_after(deadline_, [this, id] {
    finish(id, problem(ProblemKind::DeadlineExceeded, "the TDE took the move on but has not announced it"));
  });
  starts_[id] = {tde, answer.notification_id(), std::move(reply), timer};
  announced(id);
}

// Whether the announcement that a start waits for has come, and was taken.
void Operator::announced(std::uint64_t start) {
  const auto found = starts_.find(start);
  if (found == starts_.end() || shell_.machine() == nullptr) return;
  const auto [tde, notification_id] = std::pair(found->second.tde, found->second.notification_id);
  for (const auto* migration : shell_.machine()->migrations()) {
    if (migration->tde() != tde || migration->notification_id() != notification_id) continue;
    api::StartReply reply;
    reply.set_notification_id(notification_id);
    reply.set_migration_id(migration->id());
    return finish(start, std::move(reply));
  }
  for (const auto& refused : refused_)
    if (refused.tde == tde && refused.notification_id == notification_id)
      return finish(start, problem(ProblemKind::FailedPrecondition, refused.reason));
}

void Operator::finish(std::uint64_t start, Answer<api::StartReply> answer) {
  auto node = starts_.extract(start);
  if (node.empty()) return;
  loop_.cancel(node.mapped().timer);
  node.mapped().reply(std::move(answer));
}

void Operator::state(const api::StateRequest& request, std::function<void(api::StateReply)> each, Reply<void> done) {
  const auto known = subject(request.subject_id());
  if (!known) return done(tl::unexpected<Problem>(known.error()));
  if (!known->subject)
    return done(problem(ProblemKind::Unavailable,
                        "the interfaces of " + request.subject_id() + " are not known: its TDE has not connected"));
  const auto hosts = shell_.machine()->hosts();
  const auto host = std::find_if(hosts.begin(), hosts.end(), [&](const auto& h) { return h.host == request.host(); });
  if (host == hosts.end())
    return done(problem(ProblemKind::NotFound,
                        "there is no State Host '" + request.host() + "'; `sami host list` shows them"));
  if (!host->connected)
    return done(problem(ProblemKind::Unavailable, "the agent of " + request.host() + " is not connected"));
  if (states_.full()) return done(too_many());
  const auto id = shell_.next_id();
  if_m_a::v1::MasterMessage message;
  auto& query = *message.mutable_state_query();
  query.set_query_id(id);
  *query.mutable_subject() = *known->subject;
  query.set_context(request.context());
  query.set_state_class(request.state_class());
  auto part = [each = std::move(each), done = std::move(done),
               name = request.host()](Answer<if_m_a::v1::StateReply> reply) {
    if (!reply) return done(tl::unexpected<Problem>(reply.error()));
    if (!reply->error().empty())
      return done(problem(ProblemKind::FailedPrecondition, fmt::format("{}: {}", name, reply->error())));
    if (reply->records_size() > 0) {
      api::StateReply out;
      out.set_state_class(reply->state_class());
      out.mutable_records()->Swap(reply->mutable_records());
      each(std::move(out));
    }
    if (reply->last()) done({});
  };
  states_.add(id, request.host(), std::move(part));
  if (!shell_.send_to_agent(request.host(), message)) states_.peer_gone(request.host());
}

void Operator::on_announcement_refused(const std::string& tde, const std::string& notification_id,
                                       const std::string& reason) {
  if (refused_.size() >= kMaximumRefused) refused_.erase(refused_.begin());
  refused_.push_back({tde, notification_id, reason});
  on_changed({});
}

void Operator::on_tde_gone(const std::string& tde) {
  paths_.peer_gone(tde);
  moves_.peer_gone(tde);
  std::vector<std::uint64_t> waiting;
  for (const auto& [id, start] : starts_)
    if (start.tde == tde) waiting.push_back(id);
  for (const auto id : waiting)
    finish(id, problem(ProblemKind::Unavailable, "TDE " + tde + " disconnected before it announced the move"));
}

void Operator::on_state_reply(const std::string& host, if_m_a::v1::StateReply reply) {
  const bool last = reply.last() || !reply.error().empty();
  const auto id = reply.query_id();
  states_.answer(id, host, std::move(reply), last);
}

void Operator::on_path_reply(const std::string& tde, if_m_t::v1::PathReply reply) {
  const auto id = reply.query_id();
  paths_.answer(id, tde, std::move(reply));
}

void Operator::on_move_answer(const std::string& tde, if_m_t::v1::MoveAnswer answer) {
  const auto id = answer.query_id();
  moves_.answer(id, tde, std::move(answer));
}

}  // namespace sami::som
