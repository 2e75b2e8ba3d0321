#include "som/access.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>

namespace sami::som {
namespace {

bool matches(const std::vector<std::string>& patterns, const std::string& text) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return fnmatch(pattern.c_str(), text.c_str(), FNM_NOESCAPE) == 0;
  });
}

std::string joined(const std::vector<std::string>& patterns) {
  std::string text;
  for (const auto& pattern : patterns) text += (text.empty() ? "" : ", ") + pattern;
  return text;
}

template <typename Message>
Refusal first_message(const transport::Identity& peer, const Message& message, bool authorized) {
  if (!authorized && !message.has_authorize()) return "the first message must be Authorize, found another one";
  if (message.has_authorize() && message.authorize().identity() != peer.uri())
    return fmt::format("Authorize claims the identity '{}', the certificate says {}", message.authorize().identity(),
                       peer.uri());
  return std::nullopt;
}

}  // namespace

const TdeRule* Access::rule(const std::string& tde) const {
  const auto found = std::find_if(tdes_.begin(), tdes_.end(), [&](const TdeRule& each) { return each.name == tde; });
  return found == tdes_.end() ? nullptr : &*found;
}

Refusal Access::agent(const transport::Identity& peer) const {
  if (matches(agents_, peer.name)) return std::nullopt;
  return fmt::format("State Host '{}' may not register; the configuration allows {}", peer.name, joined(agents_));
}

Refusal Access::tde(const transport::Identity& peer) const {
  if (rule(peer.name) != nullptr) return std::nullopt;
  return fmt::format("TDE '{}' is not one of the configured tdes", peer.name);
}

Refusal Access::subject(const transport::Identity& tde, const std::string& subject_id) const {
  const TdeRule* found = rule(tde.name);
  if (found != nullptr && matches(found->subjects, subject_id)) return std::nullopt;
  return fmt::format("TDE '{}' may not speak for the subject '{}'; the configuration allows {}", tde.name, subject_id,
                     found == nullptr ? "it none" : joined(found->subjects));
}

Refusal Access::message(const transport::Identity& peer, const if_m_a::v1::AgentMessage& message, bool authorized) {
  if (auto refusal = first_message(peer, message, authorized)) return refusal;
  if (message.has_register_() && message.register_().host() != peer.name)
    return fmt::format("Register is for the State Host '{}', the certificate is that of '{}'",
                       message.register_().host(), peer.name);
  return std::nullopt;
}

Refusal Access::message(const transport::Identity& peer, const if_m_t::v1::TdeMessage& message, bool authorized) const {
  if (auto refusal = first_message(peer, message, authorized)) return refusal;
  if (message.has_authorize())
    for (const auto& claimed : message.authorize().subjects())
      if (auto refusal = subject(peer, claimed)) return refusal;
  return std::nullopt;
}

}  // namespace sami::som
