// The in-memory twin of the kernel's connection tracking (conntrack.h), for tests, fuzzing and the simulator. It takes
// the same requests and refuses them with the same errno as the kernel was measured to; it also plays the traffic.
//
// Not thread-safe, never blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "kernel/netlink/conntrack.h"

namespace sami::netlink {

struct MemoryConntrackOptions {
  std::size_t maximum_entries = 1U << 20;   // nf_conntrack_max; more: ENOMEM
  std::size_t event_queue = 1U << 20;       // events a subscription holds; more are lost (ENOBUFS)
  std::set<std::string> helpers = {"ftp"};  // others: EOPNOTSUPP
  bool keeps_labels = false;                // the kernel keeps them only when a rule uses `ct label`
};

class MemoryConntrack : public Conntrack {
 public:
  // ---- what packets do
  // Makes or replaces the entry as a packet would, without any check; emits New or Update.
  virtual void put(const ConntrackEntry& entry) = 0;
  // As put, but the entry stood here before events were enabled: it never emits any.
  virtual void put_silent(const ConntrackEntry& entry) = 0;
  virtual void erase(const ConntrackKey& key) = 0;
  // Time passes: timeouts run down, entries end.
  virtual void advance(std::uint32_t seconds) = 0;
  // ---- what goes wrong
  virtual void overrun_events() = 0;         // every subscription loses events
  virtual void fail_creates(int error) = 0;  // every Create from now on; 0: none
};

std::unique_ptr<MemoryConntrack> make_memory_conntrack(MemoryConntrackOptions options = {});

}  // namespace sami::netlink
