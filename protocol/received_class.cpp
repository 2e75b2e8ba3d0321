#include "protocol/received_class.h"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/findings.h"

namespace sami::protocol {

void ReceivedClass::begin_generation() {
  held.clear();
  sum = 0;
  reduced = 0;
  failed.clear();
  total.reset();
}

void ReceivedClass::hold(const state::Key& key, state::Digest digest, bool is_reduced) {
  failed.erase(key);
  Held& entry = held[key];
  sum += digest - entry.digest;
  reduced += (is_reduced ? 1U : 0U) - (entry.reduced ? 1U : 0U);
  entry = {digest, is_reduced};
}

void ReceivedClass::drop(const state::Key& key) {
  failed.erase(key);
  const auto entry = held.find(key);
  if (entry == held.end()) return;
  sum -= entry->second.digest;
  reduced -= entry->second.reduced ? 1 : 0;
  held.erase(entry);
}

void ReceivedClass::fail(const state::Key& key, common::v1::FindingCode code, const std::string& detail) {
  failed[key] = {code, detail.substr(0, 512)};
}

void ReceivedClass::check_total(const if_m_a::v1::RoundEnd& end, bool exact) {
  total.reset();
  const auto digest =
      std::find_if(end.digests().begin(), end.digests().end(), [&](const auto& d) { return d.state_class() == name; });
  if (digest == end.digests().end()) {
    total = make_finding(common::v1::FINDING_UNSUPPORTED, "the source does not send this class");
  } else if (exact && failed.empty() && (digest->records() != held.size() || digest->sum() != sum)) {
    total = make_finding(common::v1::FINDING_DIGEST_MISMATCH,
                         fmt::format("{} records with digest {:016x} are here, the source has {} with {:016x}",
                                     held.size(), sum, digest->records(), digest->sum()));
  }
}

std::vector<state::Key> ReceivedClass::stale() const {
  std::vector<state::Key> keys;
  for (const auto& key : ours) {
    if (!held.contains(key) && !failed.contains(key)) keys.push_back(key);
  }
  return keys;
}

std::vector<state::Key> ReceivedClass::all_keys() const {
  std::set<state::Key> keys = ours;
  for (const auto& [key, entry] : held) keys.insert(key);
  return {keys.begin(), keys.end()};
}

common::v1::ClassFeedback ReceivedClass::feedback(bool tolerant) const {
  common::v1::ClassFeedback feedback;
  feedback.set_state_class(name);
  feedback.set_records(held.size());
  feedback.set_result(common::v1::CLASS_RESULT_CARRIED);
  if (given_up) add_finding(feedback, *given_up);
  if (total) add_finding(feedback, *total);
  std::map<common::v1::FindingCode, std::pair<std::uint64_t, std::string>> by_code;
  for (const auto& [key, failure] : failed) {
    auto& [count, detail] = by_code[failure.code];
    if (count++ == 0) detail = failure.detail;
  }
  for (const auto& [code, what] : by_code) add_finding(feedback, make_finding(code, what.second, what.first));
  if (reduced > 0) add_finding(feedback, make_finding(common::v1::FINDING_REDUCED_FIDELITY, reduction, reduced));
  for (const auto& reservation : reservations) add_finding(feedback, reservation);
  if (residue_failed > 0)
    add_finding(feedback, make_finding(common::v1::FINDING_DRIVER_FAILURE,
                                       "records of the residue could not be installed", residue_failed));
  const bool bad_records = !failed.empty() || total || residue_failed > 0;
  if (given_up || (bad_records && !tolerant))
    feedback.set_result(common::v1::CLASS_RESULT_FAILED);
  else if (bad_records || reduced > 0 || !reservations.empty())
    feedback.set_result(common::v1::CLASS_RESULT_REDUCED_FIDELITY);
  return feedback;
}

}  // namespace sami::protocol
