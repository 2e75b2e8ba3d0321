#include "state/driver.h"

namespace sami::state {

std::string_view to_string(InstallOutcome outcome) {
  switch (outcome) {
    case InstallOutcome::Installed: return "installed";
    case InstallOutcome::Updated: return "updated";
    case InstallOutcome::Removed: return "removed";
    case InstallOutcome::Adopted: return "adopted";
    case InstallOutcome::Replaced: return "replaced";
    case InstallOutcome::Conflict: return "conflict";
    case InstallOutcome::Foreign: return "foreign";
    case InstallOutcome::Malformed: return "malformed";
    case InstallOutcome::NoCapacity: return "no capacity";
    case InstallOutcome::MissingExternalAddress: return "missing external address";
    case InstallOutcome::SharedExternalAddress: return "shared external address";
    case InstallOutcome::Unsupported: return "unsupported";
    case InstallOutcome::Failed: return "failed";
  }
  return "unknown";
}

bool succeeded(InstallOutcome outcome) { return outcome <= InstallOutcome::Replaced; }

common::FindingCode finding_code(InstallOutcome outcome) {
  switch (outcome) {
    case InstallOutcome::Conflict: return common::FINDING_CONFLICT;
    case InstallOutcome::Foreign: return common::FINDING_FOREIGN;
    case InstallOutcome::Malformed: return common::FINDING_MALFORMED;
    case InstallOutcome::NoCapacity: return common::FINDING_NO_CAPACITY;
    case InstallOutcome::MissingExternalAddress: return common::FINDING_MISSING_EXTERNAL_ADDRESS;
    case InstallOutcome::SharedExternalAddress: return common::FINDING_SHARED_EXTERNAL_ADDRESS;
    case InstallOutcome::Unsupported: return common::FINDING_UNSUPPORTED;
    case InstallOutcome::Failed: return common::FINDING_DRIVER_FAILURE;
    default: return common::FINDING_UNSPECIFIED;
  }
}

}  // namespace sami::state
