// What a destination knows of one state class of one transfer: whose each key is, what came in this generation, what
// went wrong, and the verdict that follows. Pure. Private to protocol/.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "interfaces/if_m_a/if_m_a.pb.h"
#include "state/driver.h"

namespace sami::protocol {

struct ReceivedClass {
  struct Held {
    state::Digest digest = 0;
    bool reduced = false;
  };
  struct Failure {
    common::v1::FindingCode code{};
    std::string detail;
  };

  std::string name;
  bool essential = false;
  std::set<state::Key> ours;       // this migration installed it, or was about to
  std::set<state::Key> confirmed;  // of ours: an install has been answered, so it is certain what stands here
  std::set<state::Key> uncertain;  // of ours: an install was cut short; ours, if what stands here has the same identity
  std::set<state::Key> present;    // stood here before
  std::map<state::Key, Held> held;  // alive in this generation
  state::Digest sum = 0;            // of held
  std::uint64_t reduced = 0;        // of held, how many
  std::map<state::Key, Failure> failed;
  std::vector<common::v1::Finding> reservations;  // of prepare
  std::optional<common::v1::Finding> given_up;    // the class as a whole has failed
  std::optional<common::v1::Finding> total;       // what the round's end said is not what is held
  std::uint64_t residue_failed = 0;
  std::string reduction;  // why records are reduced, the first one's words

  void begin_generation();
  void hold(const state::Key& key, state::Digest digest, bool is_reduced);
  void drop(const state::Key& key);
  void fail(const state::Key& key, common::v1::FindingCode code, const std::string& detail);
  // Compares what is held with the source's total. `exact` is false while live traffic alters what stands here.
  void check_total(const if_m_a::v1::RoundEnd& end, bool exact);
  std::vector<state::Key> stale() const;     // ours, and not named by this generation (what failed was named)
  std::vector<state::Key> all_keys() const;  // held or ours
  // tolerant: failures of single records are findings only.
  common::v1::ClassFeedback feedback(bool tolerant) const;
};

}  // namespace sami::protocol
