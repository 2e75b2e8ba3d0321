#include <fmt/format.h>

#include "som/shell.h"

namespace sami::som {
namespace {

const char* const kRecovering = "the master's journal cannot be used at present; try again";

template <typename Message, typename Session>
void refuse(Session& session, const std::string& reason) {
  Message message;
  message.mutable_refused()->set_reason(reason);
  session.send(message);
  session.close(reason);
}

}  // namespace

transport::MasterHandlers Shell::handlers() {
  transport::MasterHandlers handlers;
  handlers.on_agent_open = [this](auto session) { agent_opened(std::move(session)); };
  handlers.on_agent_message = [this](const auto& session, auto message) { agent_said(session, std::move(message)); };
  handlers.on_agent_closed = [this](const auto& session, const std::string& reason) {
    if (agents_.find(session) != nullptr) drop_agent(session->peer().name, reason);
  };
  handlers.on_tde_open = [this](auto session) { tde_opened(std::move(session)); };
  handlers.on_tde_message = [this](const auto& session, auto message) { tde_said(session, std::move(message)); };
  handlers.on_tde_closed = [this](const auto& session, const std::string& reason) {
    if (tdes_.find(session) != nullptr) drop_tde(session->peer().name, reason);
  };
  handlers.on_refused = [this](const std::string& peer, const std::string& reason) { note_refused(peer, reason); };
  return handlers;
}

std::vector<std::string> Shell::connected_tdes() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : tdes_.all())
    if (entry.authorized) names.push_back(name);
  return names;
}

bool Shell::send_to_agent(const std::string& host, const if_m_a::v1::MasterMessage& message) {
  auto* session = agents_.find(host);
  if (session != nullptr) session->send(message);
  return session != nullptr;
}

bool Shell::send_to_tde(const std::string& tde, const if_m_t::v1::MasterMessage& message) {
  auto* session = tdes_.find(tde);
  if (session != nullptr) session->send(message);
  return session != nullptr;
}

void Shell::agent_opened(std::shared_ptr<transport::AgentSession> session) {
  const std::string host = session->peer().name;
  if (auto refusal = access_.agent(session->peer())) {
    refuse<if_m_a::v1::MasterMessage>(*session, *refusal);
    note_refused("soa/" + host, *refusal);
    return;
  }
  if (agents_.find(host) != nullptr) {
    ++counters_.sessions_replaced;
    drop_agent(host, "replaced by a new session of the same State Host");
  }
  if (!machine_) {
    session->close(kRecovering);
    return;
  }
  log_.info("agent connected", {{"HOST", host}});
  agents_.add(std::move(session));
  feed(protocol::som_event::AgentConnected{host});
}

void Shell::agent_said(const std::shared_ptr<transport::AgentSession>& session, if_m_a::v1::AgentMessage message) {
  auto* entry = agents_.find(session);
  if (entry == nullptr) return;
  ++counters_.messages_received;
  const std::string host = session->peer().name;
  if (auto refusal = Access::message(session->peer(), message, entry->authorized)) {
    ++counters_.messages_refused;
    note_refused("soa/" + host, *refusal);
    refuse<if_m_a::v1::MasterMessage>(*session, *refusal);
    drop_agent(host, *refusal);
    return;
  }
  entry->authorized = true;
  if (message.has_state_reply()) {
    if (observer_ != nullptr) observer_->on_state_reply(host, std::move(*message.mutable_state_reply()));
    return;
  }
  if (message.has_resync()) ++counters_.resyncs;
  feed(protocol::som_event::FromAgent{host, std::move(message)});
}

void Shell::drop_agent(const std::string& host, const std::string& reason) {
  auto session = agents_.remove(host);
  if (session == nullptr) return;
  session->close(reason);
  log_.info("agent disconnected", {{"HOST", host}, {"reason", reason}});
  feed(protocol::som_event::AgentDisconnected{host});
  if (observer_ != nullptr) observer_->on_agent_gone(host);
}

void Shell::tde_opened(std::shared_ptr<transport::TdeSession> session) {
  const std::string tde = session->peer().name;
  if (auto refusal = access_.tde(session->peer())) {
    refuse<if_m_t::v1::MasterMessage>(*session, *refusal);
    note_refused("tde/" + tde, *refusal);
    return;
  }
  if (tdes_.find(tde) != nullptr) {
    ++counters_.sessions_replaced;
    drop_tde(tde, "replaced by a new session of the same TDE");
  }
  if (!machine_) {
    session->close(kRecovering);
    return;
  }
  log_.info("TDE connected", {{"tde", tde}});
  tdes_.add(std::move(session));
  feed(protocol::som_event::TdeConnected{tde});
}

void Shell::tde_said(const std::shared_ptr<transport::TdeSession>& session, if_m_t::v1::TdeMessage message) {
  auto* entry = tdes_.find(session);
  if (entry == nullptr) return;
  ++counters_.messages_received;
  const std::string tde = session->peer().name;
  if (auto refusal = access_.message(session->peer(), message, entry->authorized)) {
    ++counters_.messages_refused;
    note_refused("tde/" + tde, *refusal);
    refuse<if_m_t::v1::MasterMessage>(*session, *refusal);
    drop_tde(tde, *refusal);
    return;
  }
  entry->authorized = true;
  from_tde(session->peer(), std::move(message));
}

void Shell::from_tde(const transport::Identity& peer, if_m_t::v1::TdeMessage message) {
  if (message.has_path_reply()) {
    if (observer_ != nullptr) observer_->on_path_reply(peer.name, std::move(*message.mutable_path_reply()));
    return;
  }
  if (message.has_move_answer()) {
    if (observer_ != nullptr) observer_->on_move_answer(peer.name, std::move(*message.mutable_move_answer()));
    return;
  }
  if (message.has_notify() && !may_announce(peer, message.notify())) return;
  if (message.has_inventory()) keep_allowed(peer, *message.mutable_inventory());
  feed(protocol::som_event::FromTde{peer.name, std::move(message)});
}

void Shell::drop_tde(const std::string& tde, const std::string& reason) {
  auto session = tdes_.remove(tde);
  if (session == nullptr) return;
  session->close(reason);
  log_.info("TDE disconnected", {{"tde", tde}, {"reason", reason}});
  feed(protocol::som_event::TdeDisconnected{tde});
  if (observer_ != nullptr) observer_->on_tde_gone(tde);
}

// Later phases of a move carry no subject: the machine takes them only from the TDE that announced it.
bool Shell::may_announce(const transport::Identity& tde, const if_m_t::v1::Notify& notify) {
  if (!notify.has_subject()) return true;
  const auto refusal = access_.subject(tde, notify.subject().id());
  if (!refusal) return true;
  ++counters_.messages_refused;
  std::uint64_t suppressed = 0;
  if (refusals_.pass(loop_.now(), suppressed)) audit_.add("refused", *refusal, {}, notify.subject().id());
  if_m_t::v1::MasterMessage answer;
  auto& acknowledged = *answer.mutable_notify_acknowledged();
  acknowledged.set_notification_id(notify.notification_id());
  acknowledged.set_sequence(notify.sequence());
  acknowledged.set_accepted(false);
  acknowledged.set_reason(*refusal);
  send_to_tde(tde.name, answer);
  if (observer_ != nullptr) observer_->on_announcement_refused(tde.name, notify.notification_id(), *refusal);
  return false;
}

void Shell::keep_allowed(const transport::Identity& tde, if_m_t::v1::Inventory& inventory) {
  auto& places = *inventory.mutable_places();
  for (int i = places.size() - 1; i >= 0; --i) {
    const auto refusal = access_.subject(tde, places[i].subject().id());
    if (!refusal) continue;
    ++counters_.messages_refused;
    log_.limited(refusals_, LogLevel::Warning, "a place was left out of the inventory: " + *refusal);
    places.DeleteSubrange(i, 1);
  }
}

void Shell::note_refused(const std::string& peer, const std::string& reason) {
  ++counters_.sessions_refused;
  std::uint64_t suppressed = 0;
  if (!refusals_.pass(loop_.now(), suppressed)) return;
  std::string detail = fmt::format("{}: {}", peer, reason);
  if (suppressed > 0) detail += fmt::format(" ({} more were refused in the meantime)", suppressed);
  audit_.add("refused", detail);
}

}  // namespace sami::som
