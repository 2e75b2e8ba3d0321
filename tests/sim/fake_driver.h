// A State Host's kernel in memory, and drivers for two state classes on it. For the simulator and for unit tests.
//
// "connection_tracking": entries that traffic makes, alters and ends; a record is identified by its key and
// translation. "counters": one cumulated value per subject address; what is moved in stays an object of its own, named
// by the epoch, until settle() folds it in, so that installing twice is installing once. Not thread-safe; the caller
// hands in the clock.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "runtime/clock.h"
#include "state/driver.h"

namespace sami::sim {

constexpr std::string_view connections_class = "connection_tracking";
constexpr std::string_view counters_class = "counters";

using Address = std::uint32_t;  // IPv4, host order
std::string octets(Address address);

struct Connection {
  Address first = 0;  // who opened it
  Address second = 0;
  std::uint32_t port = 0;
  std::uint32_t translation = 0;  // external port; 0: not translated
  std::uint32_t version = 0;      // raised by every change of protocol state
  Instant born;
  std::string installed_by;  // migration; empty: traffic
};
state::Key key_of(const Connection& connection);
std::string encode(const Connection& connection);
bool decode(const std::string& body, Connection& connection);

struct Counter {
  std::uint64_t own = 0;                         // counted or folded in here
  std::map<std::uint64_t, std::uint64_t> moved;  // epoch -> moved in, not yet folded
  std::uint64_t total() const;
};
state::Key counter_key(Address address);

struct Context {
  std::map<state::Key, Connection> connections;
  std::map<state::Key, Counter> counters;
  std::map<std::string, Instant> barriers;  // subject -> until when its packets are dropped
};

class FakeFollower {
 public:
  virtual ~FakeFollower() = default;
  virtual void changed(const std::string& context, const state::Key& key) = 0;
};

// The tables. Whoever changes one says so with changed().
class FakeHost {
 public:
  std::string name;
  std::map<std::string, Context> contexts;
  std::size_t capacity = 100'000;                                // of connections, for installs
  std::vector<std::pair<std::string, FakeFollower*>> followers;  // of a state class

  void changed(std::string_view state_class, const std::string& context, const state::Key& key);
  bool barrier_up(const std::string& context, const std::string& subject, Instant now) const;
};

bool is_subjects(const common::v1::Subject& subject, Address address);
bool selects(const common::v1::PeerSelector& peers, Address address);
// One end is the subject's, and the selector takes the other.
bool in_scope(const state::Scope& scope, Address first, Address second);

class FakeDriver : public state::Driver, public FakeFollower {
 public:
  FakeDriver(FakeHost& host, std::string_view state_class, std::function<Instant()> now);
  ~FakeDriver() override;
  FakeDriver(const FakeDriver&) = delete;
  FakeDriver& operator=(const FakeDriver&) = delete;

  bool needs_barrier = false;
  std::size_t event_limit = 1000;             // more changes between two calls are an overrun
  Duration young = std::chrono::seconds(60);  // an entry of this age at most is younger than a move
  std::size_t followed() const { return followed_.size(); }
  void overrun();  // every follower loses events

  state::DriverProfile profile() const override;
  Result<state::Preparation> prepare(const state::Scope& scope) override;
  Result<void> follow(const state::Scope& scope) override;
  Result<void> unfollow(const state::Scope& scope) override;
  Result<state::Changes> changes(const state::Scope& scope) override;
  Result<std::vector<state::InstallResult>> install(const state::Scope& scope,
                                                    const std::vector<state::InstallItem>& items) override;
  Result<void> activate(const state::Scope& scope, const std::vector<state::Key>& keys) override;
  Result<void> raise_barrier(const state::Scope& scope, std::uint32_t timeout_ms) override;
  Result<void> lower_barrier(const state::Scope& scope) override;
  void changed(const std::string& context, const state::Key& key) override;

 protected:
  virtual bool in_scope_key(const state::Scope& scope, const state::Key& key) const = 0;
  virtual state::InstallResult install_one(const state::Scope& scope, Context& context,
                                           const state::InstallItem& item) = 0;
  virtual std::vector<state::Key> present(const state::Scope& scope, const Context& context) const = 0;
  Context* context(const state::Scope& scope) const;
  static const std::string& context_name(const state::Scope& scope);

  FakeHost& host_;
  const std::string class_;
  const std::function<Instant()> now_;

 private:
  struct Followed {
    state::Scope scope;
    std::set<state::Key> keys;
    bool overrun = false;
  };
  std::map<std::string, Followed> followed_;
};

class FakeConnections final : public FakeDriver {
 public:
  FakeConnections(FakeHost& host, std::function<Instant()> now);
  Result<std::vector<state::Record>> snapshot(const state::Scope& scope) override;
  Result<std::vector<state::Record>> read(const state::Scope& scope, const std::vector<state::Key>& keys) override;
  Result<void> settle(const state::Scope& scope, const std::vector<state::Key>& keys) override;
  Result<std::uint64_t> remove(const state::Scope& scope, const std::vector<state::Key>& keys) override;
  Result<std::uint64_t> sweep(const state::Scope& scope) override;

 private:
  bool in_scope_key(const state::Scope& scope, const state::Key& key) const override;
  state::InstallResult install_one(const state::Scope& scope, Context& context,
                                   const state::InstallItem& item) override;
  std::vector<state::Key> present(const state::Scope& scope, const Context& context) const override;
};

class FakeCounters final : public FakeDriver {
 public:
  FakeCounters(FakeHost& host, std::function<Instant()> now);
  Result<std::vector<state::Record>> snapshot(const state::Scope& scope) override;
  Result<std::vector<state::Record>> read(const state::Scope& scope, const std::vector<state::Key>& keys) override;
  Result<void> settle(const state::Scope& scope, const std::vector<state::Key>& keys) override;
  Result<std::uint64_t> remove(const state::Scope& scope, const std::vector<state::Key>& keys) override;
  Result<std::uint64_t> sweep(const state::Scope& scope) override;

 private:
  bool in_scope_key(const state::Scope& scope, const state::Key& key) const override;
  state::InstallResult install_one(const state::Scope& scope, Context& context,
                                   const state::InstallItem& item) override;
  std::vector<state::Key> present(const state::Scope& scope, const Context& context) const override;
};

}  // namespace sami::sim
