#include "kernel/windows/memory_windows.h"

#include <linux/netfilter/nf_conntrack_tcp.h>
#include <netinet/in.h>

#include "kernel/windows/segments.h"

namespace sami::windows {

namespace {

using netlink::ConntrackEntry;
using netlink::ConntrackKey;

class Memory : public MemoryWindows {
 public:
  explicit Memory(netlink::MemoryConntrack& conntrack) : conntrack_(conntrack) {}

  Result<void> available() const override {
    if (unavailable_) return tl::unexpected(*unavailable_);
    return {};
  }

  Result<std::vector<std::optional<TcpWindow>>> read(const std::vector<ConntrackKey>& keys) override {
    if (unavailable_) return tl::unexpected(*unavailable_);
    std::vector<std::optional<TcpWindow>> windows;
    for (const auto& key : keys) {
      const auto entry = find(key);
      windows.push_back(entry && entry->tcp ? std::optional(current(*entry)) : std::nullopt);
    }
    return windows;
  }

  Result<void> write(const std::vector<WindowWrite>& writes) override {
    if (unavailable_) return tl::unexpected(*unavailable_);
    if (failing_) return {};
    for (const auto& write : writes) {
      const auto entry = find({write.original, write.zone});
      if (!entry || !entry->tcp) continue;
      TcpWindow window = current(*entry);
      for (const auto& segment : segments_of(write)) apply(segment, window);
      windows_[netlink::key_of(*entry)] = {entry->id, window};
    }
    return {};
  }

  Result<void> raise(const std::vector<Place>& places, std::chrono::milliseconds) override {
    if (barrier_error_) return tl::unexpected(*barrier_error_);
    places_.insert(places.begin(), places.end());
    return {};
  }
  Result<void> lower(const std::vector<Place>& places) override {
    if (barrier_error_) return tl::unexpected(*barrier_error_);
    for (const auto& place : places) places_.erase(place);
    return {};
  }

  void put(const ConntrackKey& key, const TcpWindow& window) override {
    const auto entry = find(key);
    if (!entry) return;
    windows_[key] = {entry->id, window};
    const bool watched = everything_ || watched_.contains({key.zone, entry->original.source}) ||
                         watched_.contains({key.zone, entry->reply.source});
    if (watched) noted_[key] = entry->reply;
  }
  Result<void> watch(const std::vector<Place>& places, bool everything) override {
    if (unavailable_) return tl::unexpected(*unavailable_);
    watched_ = {places.begin(), places.end()};
    everything_ = everything;
    if (!watches()) noted_.clear();
    return {};
  }
  Result<Taken> take() override {
    if (unavailable_) return tl::unexpected(*unavailable_);
    Taken taken;
    for (const auto& [key, reply] : noted_) taken.connections.push_back({key, reply});
    noted_.clear();
    taken.overrun = std::exchange(overrun_, false);
    return taken;
  }
  bool watches() const override { return everything_ || !watched_.empty(); }
  void overrun_tracker() override { overrun_ = true; }
  std::set<Place> places() const override { return places_; }
  void fail_writes(bool failing) override { failing_ = failing; }
  void fail_barrier(std::optional<Error> why) override { barrier_error_ = std::move(why); }
  void make_unavailable(std::optional<Error> why) override { unavailable_ = std::move(why); }

 private:
  std::optional<ConntrackEntry> find(const ConntrackKey& key) {
    const auto found = conntrack_.table().get({key});
    return found ? found->at(0) : std::nullopt;
  }
  // The entry's windows; scales and the flags that ctnetlink sets are the entry's own.
  TcpWindow current(const ConntrackEntry& entry) {
    TcpWindow window;
    const auto at = windows_.find(netlink::key_of(entry));
    if (at != windows_.end() && at->second.first == entry.id) window = at->second.second;
    const auto take = [](WindowDirection& direction, std::uint8_t scale, std::uint8_t flags) {
      direction.scale = scale;
      direction.flags =
          static_cast<std::uint8_t>((direction.flags & ~netlink::kTcpFlagsMask) | (flags & netlink::kTcpFlagsMask));
    };
    take(window.original, entry.tcp->scale_original, entry.tcp->flags_original);
    take(window.reply, entry.tcp->scale_reply, entry.tcp->flags_reply);
    return window;
  }

  netlink::MemoryConntrack& conntrack_;
  std::map<ConntrackKey, std::pair<std::uint32_t, TcpWindow>> windows_;  // with the id of the entry
  std::set<Place> places_, watched_;
  std::map<ConntrackKey, netlink::ConntrackTuple> noted_;
  bool everything_ = false, overrun_ = false;
  bool failing_ = false;
  std::optional<Error> barrier_error_, unavailable_;
};

}  // namespace

std::unique_ptr<MemoryWindows> make_memory_windows(netlink::MemoryConntrack& conntrack) {
  return std::make_unique<Memory>(conntrack);
}

}  // namespace sami::windows
