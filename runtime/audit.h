// The audit trail: what happened to a subject's flows, when, and why. Lines are only ever added; the oldest go when
// there are too many. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/clock.h"
#include "runtime/result.h"

namespace sami {

struct AuditRecord {
  WallTime wall = 0;
  std::string migration_id;
  std::string subject_id;
  std::string event;
  std::string detail;
};

// Empty texts match everything; times are inclusive.
struct AuditQuery {
  std::string migration_id = {};
  std::string subject_id = {};
  WallTime from = 0;
  WallTime to = 0;                   // 0: no end
  std::uint32_t limit = 1000;        // the newest so many of those that match
};

class Audit {
 public:
  virtual ~Audit() = default;
  // Survives the end of the process when it returns; a loss of power may cost the last seconds.
  // Errors: Failed, Corrupt.
  virtual Result<void> append(const std::vector<AuditRecord>& records) = 0;
  // Oldest first. Errors: Failed, Corrupt.
  virtual Result<std::vector<AuditRecord>> query(const AuditQuery& query) = 0;
};

// "<folder>/audit.db", made as the journal is (runtime/journal.h) and with its errors. Keeps the newest max_rows.
Result<std::unique_ptr<Audit>> open_audit(const std::string& folder, std::uint64_t max_rows = 1'000'000);
// In memory, for tests.
std::unique_ptr<Audit> make_memory_audit(std::uint64_t max_rows = 1'000'000);

}  // namespace sami
