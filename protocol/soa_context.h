// What the two roles of the agent's machine share: one step's effects, driver calls in flight, the record of a
// transfer. Private to protocol/.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "protocol/journal.pb.h"
#include "protocol/soa.h"

namespace sami::protocol {

using if_m_a::v1::TransferRole;
using if_m_a::v1::TransferState;

// ARCHITECTURE.md "SOA", both roles.
bool may_follow(TransferRole role, TransferState from, TransferState to);

struct TransferKey {
  std::string migration_id;
  std::uint32_t index = 0;
  TransferRole role = if_m_a::v1::TRANSFER_ROLE_UNSPECIFIED;
  friend auto operator<=>(const TransferKey&, const TransferKey&) = default;
};

// Driver calls that were not answered yet.
struct CallTable {
  struct Target {
    TransferKey transfer;
    std::string state_class;
  };
  std::uint64_t next = 1;
  std::map<std::uint64_t, Target> open;
};

struct SoaContext {
  const SoaConfig& config;
  Instant now;
  SoaStep& step;
  CallTable& calls;
};

using CallVariant = decltype(DriverCall::call);
using MasterWord = if_m_a::v1::MasterMessage;

// How a transfer ended, for soa.cpp: what to answer now and whenever it is asked again.
struct Ending {
  std::optional<if_m_a::v1::AgentMessage> answer;  // nothing: the lease expired, nobody is told
};

class TransferBase {
 public:
  TransferBase(journal::AgentTransfer record, Instant now);
  virtual ~TransferBase() = default;

  const journal::AgentTransfer& record() const { return record_; }
  const TransferKey& key() const { return key_; }
  void renew_lease(const SoaConfig& config, Instant now);
  const std::optional<Ending>& ending() const { return ending_; }

  virtual void on_reply(SoaContext& context, const std::string& state_class, DriverReply reply) = 0;
  virtual void tick(SoaContext& context) = 0;
  virtual Instant next_deadline() const = 0;
  virtual TransferView view() const = 0;
  virtual bool leased() const = 0;
  bool barrier() const { return record_.barrier(); }
  const std::shared_ptr<const state::Scope>& scope() const { return scope_; }

 protected:
  void enter(SoaContext& context, TransferState state);
  void save(SoaContext& context) const;
  std::uint64_t call(SoaContext& context, const std::string& state_class, CallVariant call) const;
  void audit(SoaContext& context, std::string event, std::string detail) const;
  if_m_a::v1::AgentMessage& send(SoaContext& context) const { return context.step.messages.emplace_back(); }
  void rebuild_scope();
  bool live() const;  // the subject runs at the destination

  journal::AgentTransfer record_;
  TransferKey key_;
  std::shared_ptr<const state::Scope> scope_;
  Instant lease_until_;
  std::optional<Ending> ending_;
};

std::string transfer_key(const TransferKey& key);
std::string keys_prefix(const TransferKey& key);
std::string_view word(TransferState state);
// The profile of a class on this host; nullptr: it has none.
const state::DriverProfile* find_profile(const SoaConfig& config, const std::string& state_class);

}  // namespace sami::protocol
