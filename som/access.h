// Who may say what to the SOM: every rule about identities and subjects, in one place. The certificate decides who a
// peer is, the configuration what it may do; a message's own claims are only checked against both. Pure.
#pragma once

#include <optional>
#include <string>

#include "interfaces/if_m_a/if_m_a.pb.h"
#include "interfaces/if_m_t/if_m_t.pb.h"
#include "interfaces/transport/identity.h"
#include "som/config.h"

namespace sami::som {

// nullopt: allowed. Otherwise a sentence: what was wrong and what was expected.
using Refusal = std::optional<std::string>;

class Access {
 public:
  Access(std::vector<TdeRule> tdes, std::vector<std::string> agents)
      : tdes_(std::move(tdes)), agents_(std::move(agents)) {}

  Refusal agent(const transport::Identity& peer) const;
  Refusal tde(const transport::Identity& peer) const;
  Refusal subject(const transport::Identity& tde, const std::string& subject_id) const;

  // `authorized`: an Authorize was taken earlier in the session. A refused message ends the session, except where the
  // rule is about a subject (see subject()).
  static Refusal message(const transport::Identity& peer, const if_m_a::v1::AgentMessage& message, bool authorized);
  Refusal message(const transport::Identity& peer, const if_m_t::v1::TdeMessage& message, bool authorized) const;

 private:
  const TdeRule* rule(const std::string& tde) const;
  std::vector<TdeRule> tdes_;
  std::vector<std::string> agents_;
};

}  // namespace sami::som
