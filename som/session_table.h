// The open sessions of one kind of peer, by the name in the peer's certificate: at most one per name. Loop thread only.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

namespace sami::som {

template <typename Session>
class SessionTable {
 public:
  struct Entry {
    std::shared_ptr<Session> session;
    bool authorized = false;           // an Authorize was taken
  };

  // Nothing if this session is not the one in the table (replaced, refused, dropped).
  Entry* find(const std::shared_ptr<Session>& session) {
    const auto found = entries_.find(session->peer().name);
    return found != entries_.end() && found->second.session == session ? &found->second : nullptr;
  }
  Session* find(const std::string& name) const {
    const auto found = entries_.find(name);
    return found == entries_.end() ? nullptr : found->second.session.get();
  }
  void add(std::shared_ptr<Session> session) {
    const std::string name = session->peer().name;
    entries_[name] = Entry{std::move(session), false};
  }
  // The session that was there, or null.
  std::shared_ptr<Session> remove(const std::string& name) {
    auto node = entries_.extract(name);
    return node.empty() ? nullptr : std::move(node.mapped().session);
  }
  void close_all(const std::string& reason) {
    for (auto& [name, entry] : std::exchange(entries_, {})) entry.session->close(reason);
  }
  const std::map<std::string, Entry>& all() const { return entries_; }

 private:
  std::map<std::string, Entry> entries_;
};

}  // namespace sami::som
