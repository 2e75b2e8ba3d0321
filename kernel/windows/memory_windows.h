// The in-memory twin of windows.h, over the in-memory conntrack: for tests and the simulator. Not thread-safe, never
// blocks.
#pragma once

#include <map>
#include <memory>
#include <set>

#include "kernel/netlink/memory_conntrack.h"
#include "kernel/windows/windows.h"

namespace sami::windows {

class MemoryWindows : public TcpWindows, public Barrier, public PacketTracker {
 public:
  Result<void> available() const override = 0;  // of both
  // ---- what packets do: the entry, if there is one, has these windows now, and is noted where it is watched.
  virtual void put(const netlink::ConntrackKey& key, const TcpWindow& window) = 0;
  // ---- what a test asks: the places that are up.
  virtual std::set<Place> places() const = 0;
  virtual bool watches() const = 0;
  // ---- what goes wrong; nullopt: nothing any more.
  virtual void fail_writes(bool failing) = 0;               // segments have no effect
  virtual void fail_barrier(std::optional<Error> why) = 0;  // raise and lower
  virtual void make_unavailable(std::optional<Error> why) = 0;
  virtual void overrun_tracker() = 0;
};

// `conntrack` outlives it. Timeouts of the barrier do not run.
std::unique_ptr<MemoryWindows> make_memory_windows(netlink::MemoryConntrack& conntrack);

}  // namespace sami::windows
