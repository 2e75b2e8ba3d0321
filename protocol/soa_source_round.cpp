// The rounds of a source: which calls each needs, what their answers mean, and how records become chunks.
#include <fmt/format.h>

#include <algorithm>

#include "protocol/findings.h"
#include "protocol/soa_source.h"
#include "protocol/validation.h"

namespace sami::protocol {

using namespace if_m_a::v1;  // the states' names

namespace {
constexpr std::uint32_t maximum_failures = 5;  // in a row, then the class is given up
constexpr std::size_t maximum_key = 256;
constexpr std::size_t maximum_record = maximum_chunk - 4096;

template <typename T>
T* result_of(DriverReply& reply) {
  return std::get_if<T>(&reply.result);
}
}  // namespace

bool SourceTransfer::barrier_wanted(const Class& c) const { return c.needs_barrier && !thaw_ && !live(); }

std::vector<SourceTransfer::Call> SourceTransfer::plan_of(Activity activity, const Class& c) const {
  switch (activity) {
    case Activity::Snapshot: return {Call::Follow, Call::Snapshot};
    case Activity::Delta: return {Call::Changes, Call::Read};
    case Activity::Final: return {Call::Finalize};
    case Activity::Residue:
      if (residue_full_ || !c.following) return {Call::Follow, Call::Snapshot};
      return {Call::Changes, Call::Read};
    case Activity::Poll: return {Call::Changes};
    case Activity::Thaw: return c.needs_barrier ? std::vector{Call::LowerBarrier} : std::vector<Call>{};
    case Activity::Stop:
      if (record_.barrier() && c.needs_barrier) return {Call::LowerBarrier, Call::Unfollow};
      return {Call::Unfollow};
    case Activity::Sweep: return c.kept ? std::vector<Call>{} : std::vector{Call::Sweep};
    case Activity::Idle: break;
  }
  return {};
}

void SourceTransfer::begin(SoaContext& context, Activity activity) {
  activity_ = activity;
  ++serial_;
  if (activity == Activity::Final) final_begun_ = true;
  if (activity == Activity::Sweep) sweep_begun_ = context.now;
  const bool ends = activity == Activity::Stop || activity == Activity::Thaw;
  bool raises = false;
  for (Class& c : classes_) {
    c.batch.clear();
    c.failures = 0;
    c.retry_at = Instant{INT64_MIN};
    c.plan = c.given_up && !ends ? std::vector<Call>{} : plan_of(activity, c);
    raises = raises || (activity == Activity::Final && !c.plan.empty() && barrier_wanted(c));
  }
  if (raises && !record_.barrier()) {  // journaled before it goes up
    record_.set_barrier(true);
    save(context);
  }
  pump(context);
}

void SourceTransfer::pump(SoaContext& context) {
  if (activity_ == Activity::Idle) return;
  bool through = true;
  for (Class& c : classes_) {
    if (c.plan.empty() && c.calling == Call::None) continue;
    if (c.plan.empty() && c.serial != serial_) continue;  // a stray call of an abandoned activity
    through = false;
    if (c.calling == Call::None && c.retry_at <= context.now) issue(context, c);
    if (c.plan.empty() && c.calling == Call::None) return pump(context);
  }
  if (through) close_round(context);
}

void SourceTransfer::issue(SoaContext& context, Class& c) {
  const Call next = c.plan.front();
  CallVariant what;
  switch (next) {
    case Call::Follow: what = driver_call::Follow{}; break;
    case Call::Snapshot: what = driver_call::Snapshot{}; break;
    case Call::Finalize:
      what = driver_call::Finalize{barrier_wanted(c) ? context.config.barrier_timeout_ms : 0,
                                   {c.dirty.begin(), c.dirty.end()}};
      break;
    case Call::Changes: what = driver_call::Changes{}; break;
    case Call::Read:
      if (c.dirty.empty()) {
        c.plan.clear();
        return;
      }
      c.reading.assign(c.dirty.begin(), c.dirty.end());
      what = driver_call::Read{c.reading};
      break;
    case Call::LowerBarrier: what = driver_call::LowerBarrier{}; break;
    case Call::Unfollow: what = driver_call::Unfollow{}; break;
    case Call::Sweep: what = driver_call::Sweep{}; break;
    case Call::None: return;
  }
  c.calling = next;
  c.serial = serial_;
  c.call_id = call(context, c.name, std::move(what));
}

void SourceTransfer::on_reply(SoaContext& context, const std::string& state_class, DriverReply reply) {
  for (Class& c : classes_) {
    if (c.name != state_class || c.calling == Call::None || c.call_id != reply.id) continue;
    const Call answered = std::exchange(c.calling, Call::None);
    const bool current = c.serial == serial_ && activity_ != Activity::Idle;
    if (const auto* error = std::get_if<Error>(&reply.result)) {
      if (answered == Call::Changes || answered == Call::Finalize) c.changes_lost = true;
      if (current) on_error(context, c, answered, *error);
    } else if (apply(context, c, answered, reply) && current && c.serial == serial_ && !c.plan.empty()) {
      c.failures = 0;
      c.plan.erase(c.plan.begin());
    }
    break;
  }
  pump(context);
  choose(context);
}

// The call is repeated after a while; a driver that keeps failing costs the class, and an essential class the transfer.
void SourceTransfer::on_error(SoaContext& context, Class& c, Call call, const Error& error) {
  c.retry_at = context.now + context.config.round_interval;
  if (++c.failures < maximum_failures) return;
  const bool ends = call == Call::Sweep || call == Call::Unfollow || call == Call::LowerBarrier;
  audit(context, "driver", fmt::format("{}: {}", c.name, error.message));
  if (ends) {
    if (call == Call::Sweep) c.sweep_failed = true;
    c.failures = 0;
    c.plan.erase(c.plan.begin());
    return;
  }
  c.plan.clear();
  c.given_up = true;
  auto why = failed_class(c.name, common::v1::FINDING_DRIVER_FAILURE, error.message);
  if (c.essential || record_.state() == TRANSFER_STATE_RELEASING) fail(context, std::move(why));
}

// False: the activity has changed, the plan is not to be advanced.
bool SourceTransfer::apply(SoaContext& context, Class& c, Call call, DriverReply& reply) {
  switch (call) {
    case Call::Follow: c.following = true; return true;
    case Call::Unfollow: c.following = false; return true;
    case Call::Changes: {
      const auto* changes = result_of<state::Changes>(reply);
      return changes == nullptr || take_changes(context, c, *changes);
    }
    case Call::Finalize: {
      auto* finalized = result_of<Finalized>(reply);
      return finalized == nullptr || take_finalized(context, c, std::move(*finalized));
    }
    case Call::Snapshot: {
      auto* records = result_of<std::vector<state::Record>>(reply);
      if (c.serial != serial_ || records == nullptr) return true;
      return take_snapshot(context, c, std::move(*records));
    }
    case Call::Read: {
      auto* records = result_of<std::vector<state::Record>>(reply);
      if (c.serial != serial_ || records == nullptr) return true;
      if (!acceptable(context, c, *records)) return false;
      return take_read(c, std::move(*records)), true;
    }
    case Call::Sweep:
      if (const auto* count = result_of<std::uint64_t>(reply)) swept_ += *count;
      c.sweep_failed = false;
      return true;
    default: return true;
  }
}

bool SourceTransfer::take_changes(SoaContext& context, Class& c, const state::Changes& changes) {
  c.dirty.insert(changes.keys.begin(), changes.keys.end());
  if (!changes.overrun && !std::exchange(c.changes_lost, false)) return true;
  c.changes_lost = false;
  if (c.serial == serial_ && activity_ != Activity::Idle) return on_overrun(context), false;
  c.changes_lost = residue_full_ = true;
  return true;
}

bool SourceTransfer::take_finalized(SoaContext& context, Class& c, Finalized finalized) {
  if (!take_changes(context, c, finalized.changes)) return false;
  if (c.serial != serial_) return true;
  if (!acceptable(context, c, finalized.records)) return false;
  c.reading.assign(c.dirty.begin(), c.dirty.end());
  return take_read(c, std::move(finalized.records)), true;
}

bool SourceTransfer::acceptable(SoaContext& context, Class& c, const std::vector<state::Record>& records) {
  std::string why;
  if (records.size() + c.held.size() > context.config.max_records_per_transfer + c.dirty.size())
    why = fmt::format("more than {} records", context.config.max_records_per_transfer);
  for (const auto& record : records) {
    if (record.key.empty() || record.key.size() > maximum_key || record.body.size() > maximum_record)
      why = fmt::format("a key of {} and a body of {} octets, expected 1..{} and at most {}", record.key.size(),
                        record.body.size(), maximum_key, maximum_record);
  }
  if (why.empty()) return true;
  c.plan.clear();
  c.given_up = true;
  if (c.essential) fail(context, failed_class(c.name, common::v1::FINDING_NO_CAPACITY, why));
  return false;
}

bool SourceTransfer::take_snapshot(SoaContext& context, Class& c, std::vector<state::Record> records) {
  if (!acceptable(context, c, records)) return false;
  c.dirty.clear();
  c.changes_lost = false;
  c.held.clear();
  c.sum = 0;
  for (const auto& record : records) {
    if (record.gone || !c.held.emplace(record.key, record.digest).second) continue;
    c.sum += record.digest;
  }
  std::erase_if(records, [](const state::Record& record) { return record.gone; });
  c.batch = std::move(records);
  return true;
}

void SourceTransfer::take_read(Class& c, std::vector<state::Record> records) {
  for (const auto& key : c.reading) c.dirty.erase(key);
  const bool residue = activity_ == Activity::Residue;
  for (auto& record : records) {
    const auto known = c.held.find(record.key);
    const bool was_held = known != c.held.end();
    if (record.gone && (residue || !was_held)) continue;
    if (!record.gone && was_held && known->second == record.digest && !residue) continue;
    if (was_held) c.sum -= known->second;
    if (record.gone) {
      c.held.erase(known);
    } else {
      c.held[record.key] = record.digest;
      c.sum += record.digest;
    }
    c.batch.push_back(std::move(record));
  }
}

// Events were lost: only a new snapshot is true. Once the destination has the final round it can wait for the residue.
void SourceTransfer::on_overrun(SoaContext& context) {
  residue_full_ = true;
  if (record_.state() == TRANSFER_STATE_RELEASING) return start_generation(context, 0, "events were overrun");
  if (record_.state() == TRANSFER_STATE_FINALIZED && final_begun_ && activity_ == Activity::Poll) {
    poll_due_ = context.now + context.config.round_interval;
    return begin(context, Activity::Idle);
  }
  start_generation(context, 0, "events were overrun");
}

// All classes are through.
void SourceTransfer::close_round(SoaContext& context) {
  const Activity done = std::exchange(activity_, Activity::Idle);
  poll_due_ = context.now + context.config.round_interval;
  switch (done) {
    case Activity::Stop: stopped_ = true; [[fallthrough]];
    case Activity::Thaw:
      record_.set_barrier(false);
      save(context);
      return choose(context);
    case Activity::Sweep:
      sweep_due_ = context.now + context.config.sweep_interval;
      if (sweep_begun_ >= grace_end_) return finish(context);
      if (context.now < grace_end_) sweep_due_ = std::min(sweep_due_, grace_end_);
      return;
    case Activity::Poll: return choose(context);
    default: break;
  }
  std::size_t records = 0;
  RoundEnd end;
  for (Class& c : classes_) {
    if (c.given_up) continue;
    records += c.batch.size();
    auto& digest = *end.add_digests();
    digest.set_state_class(c.name);
    digest.set_records(c.held.size());
    digest.set_sum(c.sum);
  }
  if (done == Activity::Delta && records == 0 && converged_) return choose(context);
  for (Class& c : classes_) stream_.add(c.name, std::exchange(c.batch, {}));
  end.set_kind(done == Activity::Snapshot ? ROUND_KIND_SNAPSHOT
               : done == Activity::Delta  ? ROUND_KIND_DELTA
               : done == Activity::Final  ? ROUND_KIND_FINAL
                                          : ROUND_KIND_RESIDUE);
  converged_ = records <= context.config.converged_records || stream_.round() >= context.config.max_precopy_rounds;
  end.set_converged(converged_);
  if (done == Activity::Snapshot) {
    snapshot_done_ = true;
    residue_full_ = false;
  }
  if (done == Activity::Residue) residue_ = records;
  stream_.end_round(std::move(end));
  send_chunks(context);
  choose(context);
}

void SourceTransfer::send_chunks(SoaContext& context) {
  const UploadStream::Limits limits{window_, std::min<std::size_t>(context.config.chunk_bytes, maximum_record)};
  for (auto& chunk : stream_.take(limits)) {
    auto& upload = *send(context).mutable_upload_state();
    *upload.mutable_transfer() = record_.reference();
    upload.set_chunk(std::move(chunk));
    repeat_due_ = context.now + context.config.repeat_interval;
  }
  if (stream_.unacknowledged().empty()) repeat_due_ = Instant::never();
}

void SourceTransfer::repeat_chunks(SoaContext& context) {
  for (const auto& chunk : stream_.unacknowledged()) {
    auto& upload = *send(context).mutable_upload_state();
    *upload.mutable_transfer() = record_.reference();
    upload.set_chunk(chunk);
  }
  repeat_due_ = stream_.unacknowledged().empty() ? Instant::never() : context.now + context.config.repeat_interval;
}

}  // namespace sami::protocol
