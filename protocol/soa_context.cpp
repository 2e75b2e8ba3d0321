#include "protocol/soa_context.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace sami::protocol {

namespace {

struct Row {
  TransferRole role;
  TransferState from;
  std::initializer_list<TransferState> to;
};

using namespace if_m_a::v1;  // the states' names

// A destination that restarted and misses what it had goes back to RECEIVING; one that is released early goes by
// FAILED.
bool in_table(TransferRole role, TransferState from, TransferState to) {
  const Row rows[] = {
      {TRANSFER_ROLE_SOURCE, TRANSFER_STATE_FOLLOWING, {TRANSFER_STATE_FINALIZED, TRANSFER_STATE_FAILED}},
      {TRANSFER_ROLE_SOURCE, TRANSFER_STATE_FINALIZED, {TRANSFER_STATE_RELEASING, TRANSFER_STATE_FAILED}},
      {TRANSFER_ROLE_SOURCE, TRANSFER_STATE_RELEASING, {}},
      {TRANSFER_ROLE_SOURCE, TRANSFER_STATE_FAILED, {}},
      {TRANSFER_ROLE_DESTINATION,
       TRANSFER_STATE_PREPARING,
       {TRANSFER_STATE_RECEIVING, TRANSFER_STATE_FAILED, TRANSFER_STATE_ROLLING_BACK}},
      {TRANSFER_ROLE_DESTINATION,
       TRANSFER_STATE_RECEIVING,
       {TRANSFER_STATE_STANDBY, TRANSFER_STATE_READY, TRANSFER_STATE_ROLLING_BACK, TRANSFER_STATE_FAILED}},
      {TRANSFER_ROLE_DESTINATION,
       TRANSFER_STATE_STANDBY,
       {TRANSFER_STATE_READY, TRANSFER_STATE_RECEIVING, TRANSFER_STATE_ROLLING_BACK, TRANSFER_STATE_FAILED}},
      {TRANSFER_ROLE_DESTINATION,
       TRANSFER_STATE_READY,
       {TRANSFER_STATE_COMMITTING, TRANSFER_STATE_ROLLING_BACK, TRANSFER_STATE_RECEIVING}},
      {TRANSFER_ROLE_DESTINATION, TRANSFER_STATE_COMMITTING, {}},
      {TRANSFER_ROLE_DESTINATION, TRANSFER_STATE_ROLLING_BACK, {}},
      {TRANSFER_ROLE_DESTINATION, TRANSFER_STATE_FAILED, {TRANSFER_STATE_COMMITTING, TRANSFER_STATE_ROLLING_BACK}},
  };
  return std::any_of(std::begin(rows), std::end(rows), [&](const Row& row) {
    return row.role == role && row.from == from && std::find(row.to.begin(), row.to.end(), to) != row.to.end();
  });
}

}  // namespace

bool may_follow(TransferRole role, TransferState from, TransferState to) { return in_table(role, from, to); }

std::string_view word(TransferState state) {
  constexpr std::string_view prefix = "TRANSFER_STATE_";
  std::string_view name = TransferState_Name(state);
  return name.starts_with(prefix) ? name.substr(prefix.size()) : std::string_view("UNKNOWN");
}

std::string transfer_key(const TransferKey& key) {
  return fmt::format("transfer/{}/{}/{}", key.migration_id, key.index,
                     key.role == TRANSFER_ROLE_SOURCE ? "source" : "destination");
}

std::string keys_prefix(const TransferKey& key) { return fmt::format("keys/{}/{}/", key.migration_id, key.index); }

const state::DriverProfile* find_profile(const SoaConfig& config, const std::string& state_class) {
  for (const auto& profile : config.drivers) {
    if (profile.state_class == state_class) return &profile;
  }
  return nullptr;
}

TransferBase::TransferBase(journal::AgentTransfer record, Instant now)
    : record_(std::move(record)),
      key_{record_.reference().migration_id(), record_.reference().transfer(), record_.role()},
      lease_until_(now) {
  rebuild_scope();
}

bool TransferBase::live() const {
  return record_.outcome() == common::v1::OUTCOME_AT_DESTINATION ||
         record_.conflict_rule() == common::v1::CONFLICT_RULE_MOVED;
}

void TransferBase::rebuild_scope() {
  auto scope = std::make_shared<state::Scope>();
  scope->migration_id = key_.migration_id;
  scope->transfer = key_.index;
  scope->epoch = record_.reference().epoch();
  scope->subject = record_.subject();
  scope->peers = record_.plan().peers();
  scope->context =
      key_.role == TRANSFER_ROLE_SOURCE ? record_.plan().source_context() : record_.plan().destination_context();
  scope->conflict_rule = live() ? common::v1::CONFLICT_RULE_MOVED : common::v1::CONFLICT_RULE_PLANNED;
  scope_ = std::move(scope);
}

void TransferBase::renew_lease(const SoaConfig& config, Instant now) {
  const std::uint32_t lease = record_.lease_ms() > 0 ? record_.lease_ms() : config.lease_ms;
  lease_until_ = now + std::chrono::milliseconds(lease);
}

void TransferBase::enter(SoaContext& context, TransferState state) {
  assert(may_follow(key_.role, record_.state(), state));
  record_.set_state(state);
  save(context);
  audit(context, "transfer",
        fmt::format("transfer {} as {}: {}", key_.index, key_.role == TRANSFER_ROLE_SOURCE ? "source" : "destination",
                    word(state)));
}

void TransferBase::save(SoaContext& context) const {
  context.step.journal.push_back({transfer_key(key_), record_.SerializeAsString()});
}

std::uint64_t TransferBase::call(SoaContext& context, const std::string& state_class, CallVariant what) const {
  const std::uint64_t id = context.calls.next++;
  context.calls.open[id] = {key_, state_class};
  context.step.calls.push_back({id, state_class, scope_, std::move(what)});
  return id;
}

void TransferBase::audit(SoaContext& context, std::string event, std::string detail) const {
  context.step.audit.push_back({key_.migration_id, record_.subject().id(), std::move(event), std::move(detail)});
}

}  // namespace sami::protocol
