#include <algorithm>
#include <array>
#include <type_traits>

#include "protocol/soa.h"

namespace sami::protocol {

namespace {

using Answer = decltype(DriverReply::result);

Answer answer(Result<void> result) {
  if (!result) return std::move(result).error();
  return std::monostate{};
}

template <typename T>
Answer answer(Result<T> result) {
  if (!result) return std::move(result).error();
  return std::move(result).value();
}

bool is_in_place(const state::InstallResult& result) {
  return state::succeeded(result.outcome) && result.outcome != state::InstallOutcome::Removed &&
         result.outcome != state::InstallOutcome::Adopted;
}

struct Perform {
  state::Driver& driver;
  const state::Scope& scope;
  Answer operator()(const driver_call::Prepare&) const { return answer(driver.prepare(scope)); }
  Answer operator()(const driver_call::Follow&) const { return answer(driver.follow(scope)); }
  Answer operator()(const driver_call::Unfollow&) const { return answer(driver.unfollow(scope)); }
  Answer operator()(const driver_call::Changes&) const { return answer(driver.changes(scope)); }
  Answer operator()(const driver_call::Snapshot&) const { return answer(driver.snapshot(scope)); }
  Answer operator()(const driver_call::Read& call) const { return answer(driver.read(scope, call.keys)); }
  Answer operator()(const driver_call::Install& call) const {
    auto results = driver.install(scope, call.items);
    if (!results) return std::move(results).error();
    std::vector<state::Key> keys;
    for (const auto& result : *results) {
      if (is_in_place(result)) keys.push_back(result.key);
    }
    if (keys.empty()) return Installed{std::move(*results), {}};
    auto found = driver.read(scope, keys);
    if (!found) return std::move(found).error();
    return Installed{std::move(*results), std::move(*found)};
  }
  Answer operator()(const driver_call::Activate& call) const { return answer(driver.activate(scope, call.keys)); }
  Answer operator()(const driver_call::Settle& call) const { return answer(driver.settle(scope, call.keys)); }
  Answer operator()(const driver_call::Remove& call) const { return answer(driver.remove(scope, call.keys)); }
  Answer operator()(const driver_call::Sweep&) const { return answer(driver.sweep(scope)); }
  Answer operator()(const driver_call::Finalize& call) const {
    if (call.barrier_ms > 0) {
      if (auto raised = driver.raise_barrier(scope, call.barrier_ms); !raised) return std::move(raised).error();
    }
    auto changes = driver.changes(scope);
    if (!changes) return std::move(changes).error();
    std::vector<state::Key> keys = call.keys;
    keys.insert(keys.end(), changes->keys.begin(), changes->keys.end());
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    if (keys.empty() || changes->overrun) return Finalized{std::move(*changes), {}};
    auto records = driver.read(scope, keys);
    if (!records) return std::move(records).error();
    return Finalized{std::move(*changes), std::move(*records)};
  }
  Answer operator()(const driver_call::LowerBarrier&) const { return answer(driver.lower_barrier(scope)); }
};

}  // namespace

std::string_view to_string(const DriverCall& call) {
  constexpr std::array<std::string_view, std::variant_size_v<decltype(call.call)>> names{
      "prepare",  "follow", "unfollow", "changes", "snapshot", "read",         "install",
      "activate", "settle", "remove",   "sweep",   "finalize", "lower_barrier"};
  return names[call.call.index()];
}

DriverReply perform(const DriverCall& call, state::Driver& driver) {
  return {call.id, std::visit(Perform{driver, *call.scope}, call.call)};
}

}  // namespace sami::protocol
