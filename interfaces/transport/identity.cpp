#include "interfaces/transport/identity.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace sami::transport {
namespace {

bool is_lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_letter_or_digit(char c) { return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z'); }

// At most so much of what a peer sent goes into a message.
std::string_view shown(std::string_view text) { return text.substr(0, 128); }

}  // namespace

std::string Identity::uri() const { return fmt::format("spiffe://{}/sami/{}/{}", domain, role, name); }

Result<void> check_role(std::string_view role) {
  constexpr std::array<std::string_view, 5> roles = {"som", "soa", "tde", "operator", "viewer"};
  if (std::find(roles.begin(), roles.end(), role) != roles.end()) return {};
  return failure(ErrorKind::InvalidInput,
                 fmt::format("role \"{}\": expected one of {}", shown(role), fmt::join(roles, ", ")));
}

Result<void> check_name(std::string_view name) {
  const bool good = !name.empty() && name.size() <= 64 && is_letter_or_digit(name[0]) &&
                    std::all_of(name.begin(), name.end(), [](char c) {
                      return is_letter_or_digit(c) || c == '.' || c == '_' || c == '-';
                    });
  if (good) return {};
  return failure(ErrorKind::InvalidInput,
                 fmt::format("name \"{}\": expected 1 to 64 of a-z A-Z 0-9 . _ -, beginning with a letter or digit",
                             shown(name)));
}

Result<void> check_domain(std::string_view domain) {
  const bool good = !domain.empty() && domain.size() <= 253 && std::all_of(domain.begin(), domain.end(), [](char c) {
    return is_lower_or_digit(c) || c == '.' || c == '-';
  });
  if (good) return {};
  return failure(ErrorKind::InvalidInput,
                 fmt::format("domain \"{}\": expected 1 to 253 of a-z 0-9 . -", shown(domain)));
}

Result<Identity> parse_identity(std::string_view uri) {
  const auto wrong = [&] {
    return failure(ErrorKind::InvalidInput,
                   fmt::format("\"{}\" is not an identity: expected spiffe://<domain>/sami/<role>/<name>", shown(uri)));
  };
  constexpr std::string_view scheme = "spiffe://";
  constexpr std::string_view path = "/sami/";
  if (uri.substr(0, scheme.size()) != scheme) return wrong();
  const std::string_view rest = uri.substr(scheme.size());
  const std::size_t end_of_domain = rest.find('/');
  if (end_of_domain == std::string_view::npos || rest.substr(end_of_domain, path.size()) != path) return wrong();
  const std::string_view role_and_name = rest.substr(end_of_domain + path.size());
  const std::size_t slash = role_and_name.find('/');
  if (slash == std::string_view::npos) return wrong();
  Identity identity{std::string(rest.substr(0, end_of_domain)), std::string(role_and_name.substr(0, slash)),
                    std::string(role_and_name.substr(slash + 1))};
  for (const auto& part : {check_domain(identity.domain), check_role(identity.role), check_name(identity.name)})
    if (!part) return tl::unexpected(part.error());
  return identity;
}

}  // namespace sami::transport
