// How a destination takes chunks: in order, keys journaled, installed, read back, compared, acknowledged.
#include <fmt/format.h>

#include <algorithm>

#include "protocol/findings.h"
#include "protocol/soa_destination.h"
#include "protocol/validation.h"

namespace sami::protocol {

using namespace if_m_a::v1;  // the states' names

namespace {
constexpr std::uint64_t maximum_waiting = 64;
constexpr std::size_t maximum_key = 256;
constexpr std::uint64_t maximum_generation = 1ULL << 62;
}  // namespace

bool DestinationTransfer::additive() const {
  return live() || holds() || chunk_.residue() || record_.plan().leftover();
}

void DestinationTransfer::say_progress(SoaContext& context, std::uint64_t generation, std::uint64_t through,
                                       std::uint32_t round) const {
  auto& progress = *send(context).mutable_progress();
  *progress.mutable_transfer() = record_.reference();
  progress.set_generation(generation);
  progress.set_received_through(through);
  progress.set_installed_round(round);
}

void DestinationTransfer::on_chunk(SoaContext& context, const std::string& bytes) {
  const auto state = record_.state();
  const bool takes =
      state == TRANSFER_STATE_RECEIVING || state == TRANSFER_STATE_STANDBY || state == TRANSFER_STATE_READY;
  if (!takes || end_ != End::No || phase_ == Phase::Verify) return;
  StateChunk chunk;
  std::string why;
  if (bytes.size() > maximum_chunk)
    why = fmt::format("a chunk of {} octets, expected at most {}", bytes.size(), maximum_chunk);
  else if (!chunk.ParseFromString(bytes))
    why = fmt::format("a chunk of {} octets that is no StateChunk", bytes.size());
  else if (chunk.generation() == 0 || chunk.generation() >= maximum_generation || chunk.sequence() == 0)
    why = "a chunk without generation or sequence";
  if (why.empty()) return take_chunk(context, std::move(chunk));
  audit(context, "malformed", why);
  if (holds()) return;
  for (Class& c : classes_) give_up(c, common::v1::FINDING_MALFORMED, why);
  if (phase_ == Phase::Idle) fail(context);
}

void DestinationTransfer::take_chunk(SoaContext& context, StateChunk chunk) {
  if (chunk.generation() <= record_.after_generation()) return;  // a new one was asked for
  if (holds() && chunk.generation() <= record_.generation())     // everything up to READY is in place
    return say_progress(context, chunk.generation(), chunk.sequence(), chunk.round());
  if (chunk.generation() < generation_) return say_progress(context, generation_, processed_, installed_round_);
  if (chunk.generation() > generation_) begin_generation(context, chunk.generation());
  if (chunk.sequence() <= processed_) return say_progress(context, generation_, processed_, installed_round_);
  if (chunk.sequence() > processed_ + 1 && !gap_since_) gap_since_ = context.now;
  if (chunk.sequence() > processed_ + maximum_waiting) return;
  waiting_chunks_.emplace(chunk.sequence(), std::move(chunk));
  choose(context);
}

void DestinationTransfer::begin_generation(SoaContext& context, std::uint64_t generation) {
  generation_ = generation;
  processed_ = 0;
  installed_round_ = 0;
  waiting_chunks_.clear();
  gap_since_.reset();
  snapshot_seen_ = false;
  chunk_stale_ = phase_ != Phase::Idle;
  ++generations_;
  if (holds()) return;  // a residue
  for (Class& c : classes_) c.book.begin_generation();
  record_.set_generation(generation);
  save(context);
}

void DestinationTransfer::next_chunk(SoaContext& context) {
  const auto state = record_.state();
  if (state != TRANSFER_STATE_RECEIVING && state != TRANSFER_STATE_STANDBY && state != TRANSFER_STATE_READY) return;
  const auto next = waiting_chunks_.find(processed_ + 1);
  if (next == waiting_chunks_.end()) return;
  chunk_ = std::move(next->second);
  waiting_chunks_.erase(next);
  chunk_stale_ = false;
  Class* c = find(chunk_.state_class());
  if (c != nullptr && !c->book.given_up && make_items(context, *c)) return begin(context, Phase::Install);
  chunk_in_place(context);
}

// Once the subject runs here, a key that was only about to be installed may be a younger entry of its own traffic.
bool DestinationTransfer::counts_as_ours(const Class& c, const state::Key& key) const {
  return (live() ? c.book.confirmed : c.book.ours).contains(key) && !c.book.uncertain.contains(key);
}

// False: there is nothing to install. The keys that will be ours are journaled here, in the step that installs them.
bool DestinationTransfer::make_items(SoaContext& context, Class& c) {
  items_.clear();
  again_.clear();
  read_back_.clear();
  std::vector<state::Key> intended;
  std::set<state::Key> seen;
  for (auto& record : *chunk_.mutable_records()) {
    const state::Key& key = record.key();
    if (key.empty() || key.size() > maximum_key || !seen.insert(key).second) {
      c.book.fail(key.substr(0, maximum_key), common::v1::FINDING_MALFORMED,
                  fmt::format("a key of {} octets, expected 1..{}, each once", key.size(), maximum_key));
      continue;
    }
    const bool ours = c.book.ours.contains(key);
    if (record.gone() && (additive() || !ours)) {
      if (!holds()) c.book.drop(key);
      continue;
    }
    if (!record.gone() && !c.book.held.contains(key) && c.book.held.size() >= context.config.max_records_per_transfer) {
      c.book.fail(key, common::v1::FINDING_NO_CAPACITY,
                  fmt::format("more than {} records", context.config.max_records_per_transfer));
      continue;
    }
    state::InstallItem item;
    item.record.key = key;
    item.record.gone = record.gone();
    if (!record.gone()) item.record.body = std::move(*record.mutable_body());
    item.ours = counts_as_ours(c, key);
    item.only_if_absent = holds() || chunk_.residue() || record_.plan().leftover() || (live() && item.ours);
    if (!ours && !c.book.present.contains(key)) intended.push_back(key);
    items_.push_back(std::move(item));
  }
  c.book.ours.insert(intended.begin(), intended.end());
  write_keys(context, c.book.name, intended, {}, {});
  return !items_.empty();
}

void DestinationTransfer::take_installed(SoaContext& context, Class& c,
                                         const std::vector<state::InstallResult>& results) {
  using state::InstallOutcome;
  std::vector<state::Key> intended, present, removed, installed;
  const bool residue = holds();
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const state::Key& key = items_[i].record.key;
    if (i >= results.size() || results[i].key != key) {
      c.book.fail(key, common::v1::FINDING_DRIVER_FAILURE, "the driver gave no result for it");
      continue;
    }
    const state::InstallResult& result = results[i];
    const bool was_uncertain = c.book.uncertain.erase(key) > 0;
    if (!state::succeeded(result.outcome)) {
      const bool may_stand_here =
          was_uncertain && result.outcome != InstallOutcome::Conflict;  // of the earlier attempt
      if (may_stand_here) c.book.uncertain.insert(key);
      if (!items_[i].ours && !may_stand_here && c.book.ours.erase(key) > 0) removed.push_back(key);
      if (residue)
        ++c.book.residue_failed;
      else if (!chunk_stale_)
        c.book.fail(key, state::finding_code(result.outcome), result.detail);
      continue;
    }
    if (result.outcome == InstallOutcome::Removed) {
      if (c.book.ours.erase(key) > 0) removed.push_back(key);
      c.book.confirmed.erase(key);
      c.book.drop(key);
      continue;
    }
    // It has our identity, and nobody else's traffic is here yet.
    const bool is_ours =
        result.outcome == InstallOutcome::Adopted && was_uncertain && !live() && !holds() && !chunk_.residue();
    if (is_ours) {
      c.book.confirmed.insert(key);
      installed.push_back(key);
    }
    if (is_ours && !record_.plan().leftover()) {
      again_.push_back(items_[i]);
      again_.back().ours = true;
      continue;
    }
    if (result.outcome == InstallOutcome::Adopted && !is_ours) {
      ++adopted_;
      if (!items_[i].ours && c.book.ours.erase(key) > 0) present.push_back(key);
      c.book.present.insert(key);
    } else if (!is_ours) {
      if (c.book.ours.insert(key).second) intended.push_back(key);
      if (c.book.confirmed.insert(key).second) installed.push_back(key);
      read_back_.emplace_back(key, result.expected != 0 ? result.expected : result.digest);
      if (residue) ++residue_;
    }
    if (result.reduced && c.book.reduction.empty()) c.book.reduction = result.detail;
    if (!chunk_stale_ && !residue) c.book.hold(key, result.digest, result.reduced);
  }
  write_keys(context, c.book.name, intended, present, removed, installed);
}

void DestinationTransfer::take_read_back(Class& c, const std::vector<state::Record>& found) {
  const bool presence_only = additive();
  for (std::size_t i = 0; i < read_back_.size(); ++i) {
    const auto& [key, expected] = read_back_[i];
    const bool there = i < found.size() && found[i].key == key && !found[i].gone;
    if (there && (presence_only || found[i].digest == expected)) continue;
    if (holds())
      ++c.book.residue_failed;
    else if (!chunk_stale_)
      c.book.fail(key, common::v1::FINDING_DIGEST_MISMATCH,
                  there ? "read back, it is not what was sent" : "installed, but not there");
  }
}

void DestinationTransfer::chunk_in_place(SoaContext& context) {
  if (chunk_stale_) {
    phase_ = Phase::Idle;
    return choose(context);
  }
  if (!chunk_.has_round_end()) return chunk_done(context);
  if (chunk_.round_end().kind() == ROUND_KIND_SNAPSHOT) {
    snapshot_seen_ = true;
    if (!additive()) return begin(context, Phase::Stale);
  }
  round_in_place(context);
}

void DestinationTransfer::round_in_place(SoaContext& context) {
  if (chunk_stale_) {
    phase_ = Phase::Idle;
    return choose(context);
  }
  if (holds()) return chunk_done(context);
  const auto kind = chunk_.round_end().kind();
  if (kind == ROUND_KIND_RESIDUE || !snapshot_seen_) {  // it lacks what the residue adds to
    phase_ = Phase::Idle;
    gap_since_ = context.now;  // asks for a generation it can use, but not at once each time
    return;
  }
  for (Class& c : classes_) {
    if (!c.book.given_up) c.book.check_total(chunk_.round_end(), !additive());
  }
  if (kind != ROUND_KIND_FINAL) return chunk_done(context);
  begin(context, Phase::Activate);
}

void DestinationTransfer::chunk_done(SoaContext& context) {
  phase_ = Phase::Idle;
  if (chunk_stale_) return choose(context);
  processed_ = chunk_.sequence();
  gap_since_.reset();
  const bool ended = chunk_.has_round_end();
  if (ended) installed_round_ = chunk_.round();
  say_progress(context, generation_, processed_, installed_round_);
  if (essential_given_up() && !holds()) return fail(context);
  const bool final_round = ended && chunk_.round_end().kind() == ROUND_KIND_FINAL;
  if (final_round && !holds()) {
    fill_feedback();
    enter(context, TRANSFER_STATE_READY);
    say_feedback(context, FEEDBACK_STAGE_READY);
  } else if (ended && chunk_.round_end().converged() && record_.state() == TRANSFER_STATE_RECEIVING) {
    enter(context, TRANSFER_STATE_STANDBY);
    say_feedback(context, FEEDBACK_STAGE_STANDBY);
  }
  choose(context);
}

}  // namespace sami::protocol
