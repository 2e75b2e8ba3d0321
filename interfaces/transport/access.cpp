#include "interfaces/transport/access.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace sami::transport {
namespace {

using namespace std::string_view_literals;

constexpr auto agent_service = "/sami.if_m_a.v1.StateOrchestration/"sv;
constexpr auto topology_service = "/sami.if_m_t.v1.TopologyDiscovery/"sv;
constexpr auto operator_service = "/sami.management.v1.Master/"sv;
// What alters nothing. A method that is not here is the operator's alone.
constexpr std::array viewer_methods = {"Status"sv,         "ListHosts"sv,     "ListVms"sv,        "ListMigrations"sv,
                                       "ShowMigration"sv,  "WatchMigration"sv, "PlanMigration"sv, "Audit"sv,
                                       "ShowState"sv,      "ShowTopology"sv};

bool begins_with(std::string_view text, std::string_view beginning) {
  return text.substr(0, beginning.size()) == beginning;
}

// "": nobody.
std::string_view allowed_roles(std::string_view method) {
  if (begins_with(method, agent_service)) return "soa";
  if (begins_with(method, topology_service)) return "tde";
  if (!begins_with(method, operator_service)) return "";
  const auto name = method.substr(operator_service.size());
  const bool view = std::find(viewer_methods.begin(), viewer_methods.end(), name) != viewer_methods.end();
  return view ? "operator or viewer" : "operator";
}

}  // namespace

Result<void> check_access(std::string_view method, const Identity& caller, std::string_view domain) {
  if (caller.domain != domain) {
    return failure(ErrorKind::InvalidInput,
                   fmt::format("{} is of domain {}: expected {}", caller.uri(), caller.domain, domain));
  }
  const std::string_view roles = allowed_roles(method);
  const bool allowed =
      roles == caller.role || (roles == "operator or viewer" && (caller.role == "operator" || caller.role == "viewer"));
  if (allowed) return {};
  if (roles.empty())
    return failure(ErrorKind::InvalidInput, fmt::format("{} is not a method of this server", method.substr(0, 128)));
  return failure(ErrorKind::InvalidInput,
                 fmt::format("{} may not call {}: expected role {}", caller.uri(), method, roles));
}

}  // namespace sami::transport
