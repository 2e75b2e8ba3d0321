#include "som/audit_trail.h"

namespace sami::som {
namespace {
constexpr std::size_t kMaximumWaiting = 10'000;
}

void AuditTrail::add(const std::vector<protocol::AuditEntry>& entries) {
  if (entries.empty()) return;
  const WallTime wall = clock_.wall();
  for (const auto& entry : entries) {
    waiting_.push_back({wall, entry.migration_id, entry.subject_id, entry.event, entry.detail});
    if (entry.migration_id.empty() && entry.subject_id.empty())
      log_.info(entry.detail, {{"event", entry.event}});
    else
      log_.info(entry.detail, {{"event", entry.event}, {"MIGRATION_ID", entry.migration_id}, {"VM", entry.subject_id}});
  }
  write();
}

void AuditTrail::add(const std::string& event, const std::string& detail, const std::string& migration_id,
                     const std::string& subject_id) {
  add({protocol::AuditEntry{migration_id, subject_id, event, detail}});
}

Result<std::vector<AuditRecord>> AuditTrail::query(const AuditQuery& query) {
  write();
  return audit_.query(query);
}

void AuditTrail::write() {
  if (waiting_.empty()) return;
  if (auto written = audit_.append(waiting_)) {
    waiting_.clear();
    return;
  } else {
    log_.limited(limit_, LogLevel::Error, "the audit trail cannot be written; entries wait in memory",
                 {Field(written.error()), {"waiting", waiting_.size()}});
  }
  if (waiting_.size() > kMaximumWaiting)
    waiting_.erase(waiting_.begin(), waiting_.end() - static_cast<std::ptrdiff_t>(kMaximumWaiting));
}

}  // namespace sami::som
