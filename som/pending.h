// Questions that were put to a peer and are not answered yet. Bounded in number and in time. Loop thread only.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/loop.h"
#include "som/problem.h"

namespace sami::som {

template <typename T>
class Pending {
 public:
  // Called for each part of the answer; after a problem or the last part never again.
  using Handler = std::function<void(Answer<T>)>;

  // maximum: questions at once. deadline: from the question, or the part before, to the next part.
  Pending(Loop& loop, std::size_t maximum, Duration deadline) : loop_(loop), maximum_(maximum), deadline_(deadline) {}
  ~Pending() {
    for (auto& [id, entry] : entries_) loop_.cancel(entry.timer);
  }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;

  bool full() const { return entries_.size() >= maximum_; }

  void add(std::uint64_t id, const std::string& peer, Handler handler) {
    entries_[id] = {peer, std::move(handler), timer(id)};
  }
  // An answer to nothing, or from another peer than was asked, is ignored.
  void answer(std::uint64_t id, const std::string& peer, T part, bool last = true) {
    const auto found = entries_.find(id);
    if (found == entries_.end() || found->second.peer != peer) return;
    loop_.cancel(found->second.timer);
    if (last) {
      take(id)(std::move(part));
      return;
    }
    found->second.timer = timer(id);
    const Handler handler = found->second.handler;
    handler(std::move(part));
  }
  void fail(std::uint64_t id, Problem why) {
    if (entries_.count(id) > 0) take(id)(tl::unexpected<Problem>(std::move(why)));
  }
  void peer_gone(const std::string& peer) {
    std::vector<std::uint64_t> ids;
    for (const auto& [id, entry] : entries_)
      if (entry.peer == peer) ids.push_back(id);
    for (const auto id : ids) fail(id, {ProblemKind::Unavailable, peer + " disconnected before it answered"});
  }

 private:
  struct Entry {
    std::string peer;
    Handler handler;
    Loop::TimerId timer = 0;
  };

  Handler take(std::uint64_t id) {
    auto node = entries_.extract(id);
    loop_.cancel(node.mapped().timer);
    return std::move(node.mapped().handler);
  }
  Loop::TimerId timer(std::uint64_t id) {
    return loop_.call_after(deadline_, [this, id] {
      const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_).count();
      fail(id, {ProblemKind::DeadlineExceeded,
                fmt::format("{} did not answer within {} ms", entries_.at(id).peer, milliseconds)});
    });
  }

  Loop& loop_;
  const std::size_t maximum_;
  const Duration deadline_;
  std::map<std::uint64_t, Entry> entries_;
};

}  // namespace sami::som
