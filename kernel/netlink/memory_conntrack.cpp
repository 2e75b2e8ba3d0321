#include "kernel/netlink/memory_conntrack.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <map>

namespace sami::netlink {

namespace {

struct Queue {
  std::deque<ConntrackEvent> events;
  std::size_t capacity = 0;
  bool lost = false;
};

class MemoryEvents : public ConntrackEvents {
 public:
  explicit MemoryEvents(std::shared_ptr<Queue> queue) : queue_(std::move(queue)) {}
  Result<std::vector<ConntrackEvent>> drain() override {
    std::vector<ConntrackEvent> events(queue_->events.begin(), queue_->events.end());
    queue_->events.clear();
    if (std::exchange(queue_->lost, false)) return failure(ErrorKind::Retry, "messages were lost", ENOBUFS);
    return events;
  }

 private:
  std::shared_ptr<Queue> queue_;
};

ConntrackKey reply_key(const ConntrackEntry& entry) { return {entry.reply, entry.zone}; }

// The kernel takes the flags and, only when both directions have agreed on scaling, the scales.
void take_tcp(ConntrackTcp& into, const ConntrackTcp& from) {
  into.state = from.state;
  const auto flags = [](std::uint8_t old, std::uint8_t fresh) {
    return static_cast<std::uint8_t>((old & ~kTcpFlagsMask) | (fresh & kTcpFlagsMask));
  };
  into.flags_original = flags(into.flags_original, from.flags_original);
  into.flags_reply = flags(into.flags_reply, from.flags_reply);
  if (into.flags_original & into.flags_reply & IP_CT_TCP_FLAG_WINDOW_SCALE) {
    into.scale_original = from.scale_original;
    into.scale_reply = from.scale_reply;
  }
}

bool is_source_translated(const ConntrackEntry& entry) {
  const ConntrackTuple plain = mirror(entry.original);
  const bool port = is_icmp(plain.protocol) ? plain.source_port != entry.reply.source_port
                                            : plain.destination_port != entry.reply.destination_port;
  return plain.destination != entry.reply.destination || port;
}

bool is_destination_translated(const ConntrackEntry& entry) {
  const ConntrackTuple plain = mirror(entry.original);
  return plain.source != entry.reply.source ||
         (!is_icmp(plain.protocol) && plain.source_port != entry.reply.source_port);
}

class Memory : public MemoryConntrack, private ConntrackTable {
 public:
  explicit Memory(MemoryConntrackOptions options) : options_(std::move(options)) {}

  ConntrackTable& table() override { return *this; }
  Result<std::unique_ptr<ConntrackEvents>> subscribe() override {
    auto queue = std::make_shared<Queue>();
    queue->capacity = options_.event_queue;
    queues_.push_back(queue);
    return std::make_unique<MemoryEvents>(queue);
  }
  bool is_silent(const ConntrackKey& key) const override { return silent_.contains(key); }
  bool has_silent() const override { return !silent_.empty(); }

  Result<void> dump(const ConntrackFilter& filter, const std::function<void(const ConntrackEntry&)>& sink) override {
    for (const auto& [key, entry] : entries_) {
      if (matches(filter, entry)) sink(entry);
    }
    return {};
  }

  Result<std::vector<std::optional<ConntrackEntry>>> get(const std::vector<ConntrackKey>& keys) override {
    std::vector<std::optional<ConntrackEntry>> found;
    for (const auto& key : keys) {
      const auto at = entries_.find(key);
      found.push_back(at == entries_.end() ? std::nullopt : std::optional(at->second));
    }
    return found;
  }

  Result<std::vector<int>> apply(const std::vector<ConntrackRequest>& requests) override {
    std::vector<int> errors;
    for (const auto& request : requests) errors.push_back(apply_one(request));
    return errors;
  }

  Result<std::uint64_t> count() override { return entries_.size(); }

  void put(const ConntrackEntry& entry) override {
    const bool known = entries_.contains(key_of(entry));
    place(entry);
    emit(known ? EventKind::Update : EventKind::New, entry);
  }

  void put_silent(const ConntrackEntry& entry) override {
    silent_.insert(key_of(entry));
    mute_.insert(key_of(entry));
    place(entry);
  }

  void erase(const ConntrackKey& key) override {
    const auto at = entries_.find(key);
    if (at != entries_.end()) remove(at);
  }

  void advance(std::uint32_t seconds) override {
    for (auto at = entries_.begin(); at != entries_.end();) {
      const auto current = at++;
      if (current->second.timeout <= seconds) {
        remove(current);
      } else {
        current->second.timeout -= seconds;
      }
    }
  }

  void overrun_events() override {
    for (auto& weak : queues_) {
      if (const auto queue = weak.lock()) queue->lost = true;
    }
  }

  void fail_creates(int error) override { create_error_ = error; }

 private:
  using Entries = std::map<ConntrackKey, ConntrackEntry>;

  // The entry that has the key as either of its tuples.
  ConntrackEntry* find(const ConntrackKey& key) {
    if (const auto at = entries_.find(key); at != entries_.end()) return &at->second;
    const auto reply = replies_.find(key);
    return reply == replies_.end() ? nullptr : &entries_.at(reply->second);
  }

  int apply_one(const ConntrackRequest& request) {
    const ConntrackEntry& entry = request.entry;
    if (request.operation == ConntrackOperation::Create) return create(entry);
    if (request.operation == ConntrackOperation::Delete && entry.id == 0) return EINVAL;
    ConntrackEntry* found = find(key_of(entry));
    if (found == nullptr) return ENOENT;
    if (request.operation == ConntrackOperation::Delete) {
      if (found->id != entry.id) return ENOENT;
      remove(entries_.find(key_of(*found)));
      return 0;
    }
    if (request.operation == ConntrackOperation::SetTimeout) {
      if (entry.timeout != 0) found->timeout = entry.timeout;
      return 0;
    }
    return update(*found, entry);
  }

  int create(const ConntrackEntry& entry) {
    if (find(key_of(entry)) != nullptr) return EEXIST;
    if (create_error_ != 0) return create_error_;
    if (entries_.size() >= options_.maximum_entries) return ENOMEM;
    if (entry.timeout == 0) return EINVAL;
    if (!entry.helper.empty() && !options_.helpers.contains(entry.helper)) return EOPNOTSUPP;
    if (!(entry.status & IPS_CONFIRMED)) return EBUSY;
    if (find(reply_key(entry)) != nullptr) return EEXIST;
    ConntrackEntry made = entry;
    made.status &= kImportableStatus;
    const bool source = is_source_translated(entry), destination = is_destination_translated(entry);
    if (source) made.status |= IPS_SRC_NAT;
    if (destination) made.status |= IPS_DST_NAT;
    if (source || destination) made.status |= IPS_NAT_DONE_MASK;
    made.tcp.reset();
    if (entry.tcp) take_tcp(made.tcp.emplace(), *entry.tcp);
    if (!options_.keeps_labels) made.labels.clear();
    made.packets_original = made.bytes_original = made.packets_reply = made.bytes_reply = 0;
    made.id = 0;
    place(made);
    emit(EventKind::New, made);
    return 0;
  }

  int update(ConntrackEntry& found, const ConntrackEntry& entry) {
    if (entry.timeout != 0) found.timeout = entry.timeout;
    const std::uint32_t status = entry.status & kImportableStatus;
    const std::uint32_t difference = (found.status ^ status) & (kImportableStatus | IPS_EXPECTED | IPS_DYING);
    if (difference & found.status || difference & IPS_CONFIRMED) return EBUSY;
    found.status |= status;
    if (entry.tcp && found.tcp) take_tcp(*found.tcp, *entry.tcp);
    found.mark = entry.mark;
    emit(EventKind::Update, found);
    return 0;
  }

  void place(ConntrackEntry entry) {
    const ConntrackKey key = key_of(entry);
    if (const auto at = entries_.find(key); at != entries_.end()) {
      if (entry.id == 0) entry.id = at->second.id;
      replies_.erase(reply_key(at->second));
    }
    if (entry.id == 0) entry.id = next_id_++;
    replies_[reply_key(entry)] = key;
    entries_[key] = std::move(entry);
  }

  void remove(Entries::iterator at) {
    const ConntrackEntry entry = at->second;
    entries_.erase(at);
    if (const auto reply = replies_.find(reply_key(entry)); reply != replies_.end() && reply->second == key_of(entry)) {
      replies_.erase(reply);
    }
    emit(EventKind::Destroy, entry);
    mute_.erase(key_of(entry));
  }

  void emit(EventKind kind, const ConntrackEntry& entry) {
    if (mute_.contains(key_of(entry))) return;
    std::erase_if(queues_, [](const auto& queue) { return queue.expired(); });
    for (auto& weak : queues_) {
      const auto queue = weak.lock();
      if (queue->events.size() >= queue->capacity) {
        queue->lost = true;
      } else {
        queue->events.push_back({kind, key_of(entry), entry.reply});
      }
    }
  }

  MemoryConntrackOptions options_;
  Entries entries_;
  std::map<ConntrackKey, ConntrackKey> replies_;
  std::set<ConntrackKey> silent_;  // stood here when events were enabled
  std::set<ConntrackKey> mute_;    // of those, the ones that still do
  std::vector<std::weak_ptr<Queue>> queues_;
  std::uint32_t next_id_ = 1;
  int create_error_ = 0;
};

}  // namespace

std::unique_ptr<MemoryConntrack> make_memory_conntrack(MemoryConntrackOptions options) {
  return std::make_unique<Memory>(std::move(options));
}

}  // namespace sami::netlink
