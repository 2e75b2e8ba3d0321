// The audit trail as the SOM writes it: adds the wall time, and survives a trail that cannot be written for a while
// (full disk): entries wait in memory, at most 10,000, and are written with the next ones. Loop thread only.
#pragma once

#include <vector>

#include "protocol/machine.h"
#include "runtime/audit.h"
#include "runtime/clock.h"
#include "runtime/log.h"

namespace sami::som {

class AuditTrail {
 public:
  AuditTrail(Audit& audit, const Clock& clock, Log log) : audit_(audit), clock_(clock), log_(std::move(log)) {}

  void add(const std::vector<protocol::AuditEntry>& entries);
  void add(const std::string& event, const std::string& detail, const std::string& migration_id = {},
           const std::string& subject_id = {});
  Result<std::vector<AuditRecord>> query(const AuditQuery& query);

 private:
  void write();

  Audit& audit_;
  const Clock& clock_;
  Log log_;
  RateLimit limit_;
  std::vector<AuditRecord> waiting_;
};

}  // namespace sami::som
