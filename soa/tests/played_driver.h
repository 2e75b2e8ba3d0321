// A driver that a test plays.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "state/driver.h"

namespace sami::soa {

// Keeps nothing but what a test put in. Every call but snapshot succeeds without effect.
class PlayedDriver : public state::Driver {
 public:
  state::DriverProfile profile() const override {
    state::DriverProfile profile;
    profile.state_class = "connection_tracking";
    profile.representation = "played/1";
    profile.capacity = 100;
    return profile;
  }
  Result<state::Preparation> prepare(const state::Scope&) override {
    const std::lock_guard held(gate);
    ++prepared;
    return state::Preparation{true, {}, {}};
  }
  Result<void> follow(const state::Scope&) override { return {}; }
  Result<void> unfollow(const state::Scope&) override { return {}; }
  Result<state::Changes> changes(const state::Scope&) override { return state::Changes{}; }
  Result<std::vector<state::Record>> snapshot(const state::Scope& scope) override {
    const std::lock_guard held(gate);
    if (scope.context == "red") return failure(ErrorKind::InvalidInput, "no context red");
    std::vector<state::Record> all;
    for (std::size_t i = 0; i < records; ++i) {
      all.push_back({"key" + std::to_string(i), std::string(record_bytes, 'r'), false, 1});
    }
    return all;
  }
  Result<std::vector<state::Record>> read(const state::Scope&, const std::vector<state::Key>&) override {
    return std::vector<state::Record>{};
  }
  Result<std::vector<state::InstallResult>> install(const state::Scope&,
                                                    const std::vector<state::InstallItem>&) override {
    return std::vector<state::InstallResult>{};
  }
  Result<void> activate(const state::Scope&, const std::vector<state::Key>&) override { return {}; }
  Result<void> settle(const state::Scope&, const std::vector<state::Key>&) override { return {}; }
  Result<std::uint64_t> remove(const state::Scope&, const std::vector<state::Key>&) override { return 0U; }
  Result<std::uint64_t> sweep(const state::Scope&) override { return 0U; }
  Result<void> raise_barrier(const state::Scope&, std::uint32_t) override { return {}; }
  Result<void> lower_barrier(const state::Scope&) override { return {}; }

  std::mutex gate;  // a test that holds it holds the driver
  std::atomic<int> prepared = 0;
  std::size_t records = 0, record_bytes = 100;
};

}  // namespace sami::soa
