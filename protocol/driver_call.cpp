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

struct Perform {
  state::Driver& driver;
  const state::Scope& scope;
  Answer operator()(const driver_call::Prepare&) const { return answer(driver.prepare(scope)); }
  Answer operator()(const driver_call::Follow&) const { return answer(driver.follow(scope)); }
  Answer operator()(const driver_call::Unfollow&) const { return answer(driver.unfollow(scope)); }
  Answer operator()(const driver_call::Changes&) const { return answer(driver.changes(scope)); }
  Answer operator()(const driver_call::Snapshot&) const { return answer(driver.snapshot(scope)); }
  Answer operator()(const driver_call::Read& call) const { return answer(driver.read(scope, call.keys)); }
  Answer operator()(const driver_call::Install& call) const { return answer(driver.install(scope, call.items)); }
  Answer operator()(const driver_call::Activate& call) const { return answer(driver.activate(scope, call.keys)); }
  Answer operator()(const driver_call::Settle& call) const { return answer(driver.settle(scope, call.keys)); }
  Answer operator()(const driver_call::Remove& call) const { return answer(driver.remove(scope, call.keys)); }
  Answer operator()(const driver_call::Sweep&) const { return answer(driver.sweep(scope)); }
  Answer operator()(const driver_call::RaiseBarrier& call) const {
    return answer(driver.raise_barrier(scope, call.timeout_ms));
  }
  Answer operator()(const driver_call::LowerBarrier&) const { return answer(driver.lower_barrier(scope)); }
};

}  // namespace

std::string_view to_string(const DriverCall& call) {
  constexpr std::array<std::string_view, std::variant_size_v<decltype(call.call)>> names{
      "prepare",  "follow", "unfollow", "changes", "snapshot",      "read",         "install",
      "activate", "settle", "remove",   "sweep",   "raise_barrier", "lower_barrier"};
  return names[call.call.index()];
}

DriverReply perform(const DriverCall& call, state::Driver& driver) {
  return {call.id, std::visit(Perform{driver, *call.scope}, call.call)};
}

}  // namespace sami::protocol
