// The operator interface (interfaces/operator/operator.proto, service Master) without its transport: what each method
// does. operator_service.h puts gRPC around it.
//
// Loop thread only. Nothing blocks, except for journal commits of what alters something. Each of those is audited with
// the actor. Methods that ask a peer answer later: within the deadline, or as soon as the peer is gone.
#pragma once

#include <map>
#include <string>

#include "interfaces/operator/operator.pb.h"
#include "som/pending.h"
#include "som/problem.h"
#include "som/shell.h"

namespace sami::som {

namespace api = ::sami::management::v1;

class Operator final : public ShellObserver {
 public:
  // Observes the shell for as long as it lives.
  Operator(Shell& shell, Loop& loop, Duration deadline = std::chrono::seconds(5));
  ~Operator() override;
  Operator(const Operator&) = delete;
  Operator& operator=(const Operator&) = delete;

  // operator.cpp
  Answer<api::StatusReply> status() const;
  Answer<api::ListHostsReply> hosts() const;
  Answer<api::ListVmsReply> vms() const;
  Answer<api::ListMigrationsReply> migrations(const api::ListMigrationsRequest& request) const;
  Answer<api::Migration> migration(const std::string& id) const;
  Answer<api::AuditReply> audit(const api::AuditRequest& request);
  Answer<api::Empty> drain(const api::DrainHostRequest& request, const std::string& actor);
  Answer<api::Empty> abort(const api::MigrationRequest& request, const std::string& actor);
  Answer<api::Empty> force(const api::MigrationRequest& request, const std::string& actor);
  Answer<api::Empty> resolve(const api::ResolveRequest& request, const std::string& actor);

  // Calls `each` with the migration now and after every change, until it has ended, with a problem if it is not known,
  // or unwatch(). Returns what unwatch() takes.
  using Watcher = std::function<void(Answer<api::Migration>)>;
  std::uint64_t watch(const std::string& migration_id, Watcher each);
  void unwatch(std::uint64_t watch);
  std::size_t watching() const { return watches_.size(); }

  // operator_queries.cpp
  void plan(const api::PlanRequest& request, Reply<api::PlanReply> reply);
  void topology(const api::TopologyRequest& request, Reply<api::TopologyReply> reply);
  // Answers when the migration's id is known.
  void start(const api::PlanRequest& request, const std::string& actor, Reply<api::StartReply> reply);
  // `each` for every part, then `done`.
  void state(const api::StateRequest& request, std::function<void(api::StateReply)> each, Reply<void> done);

  void on_changed(const std::string& migration_id) override;
  void on_restarted() override;
  void on_announcement_refused(const std::string& tde, const std::string& notification_id,
                               const std::string& reason) override;
  void on_agent_gone(const std::string& host) override;
  void on_tde_gone(const std::string& tde) override;
  void on_state_reply(const std::string& host, if_m_a::v1::StateReply reply) override;
  void on_path_reply(const std::string& tde, if_m_t::v1::PathReply reply) override;
  void on_move_answer(const std::string& tde, if_m_t::v1::MoveAnswer answer) override;

 private:
  struct Watch {
    std::string migration_id;
    Watcher each;
  };
  // A move that a TDE was asked to begin, from its answer to the announcement.
  struct Start {
    std::string tde;
    std::string notification_id;
    Reply<api::StartReply> reply;
    Loop::TimerId timer = 0;
  };
  struct Refused {
    std::string tde;
    std::string notification_id;
    std::string reason;
  };

  Answer<const protocol::Som*> machine() const;
  Answer<protocol::SubjectView> subject(const std::string& id) const;
  Answer<std::string> tde_of(const std::string& subject_id) const;
  void tell(std::uint64_t watch);
  void query_path(const std::string& tde, const std::string& subject_id, const std::string& destination,
                  Pending<if_m_t::v1::PathReply>::Handler handler);
  void whole_topology(Reply<api::TopologyReply> reply);
  void begun(const std::string& tde, const if_m_t::v1::MoveAnswer& answer, Reply<api::StartReply> reply);
  void announced(std::uint64_t start);
  void finish(std::uint64_t start, Answer<api::StartReply> answer);

  Shell& shell_;
  Loop& loop_;
  const Duration deadline_;
  std::map<std::uint64_t, Watch> watches_;
  std::map<std::uint64_t, Start> starts_;
  std::vector<Refused> refused_;       // the newest few: a refusal may come before the answer that names it
  Pending<if_m_t::v1::PathReply> paths_;
  Pending<if_m_t::v1::MoveAnswer> moves_;
  Pending<if_m_a::v1::StateReply> states_;
};

}  // namespace sami::som
