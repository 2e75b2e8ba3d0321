// Who is at the other end, from its certificate's URI SAN spiffe://<domain>/sami/<role>/<name> (SPIFFE-ID section 2).
#pragma once

#include <string>
#include <string_view>

#include "runtime/result.h"

namespace sami::transport {

struct Identity {
  std::string domain;
  std::string role;   // "som", "soa", "tde", "operator", "viewer"
  std::string name;
  std::string uri() const;
  friend bool operator==(const Identity&, const Identity&) = default;
};
// Errors: InvalidInput, saying what was expected.
Result<Identity> parse_identity(std::string_view uri);
// One of the five.
Result<void> check_role(std::string_view role);
// 1..64 of a-z A-Z 0-9 . _ - , beginning with a letter or digit.
Result<void> check_name(std::string_view name);
// Lower case a-z 0-9 . - , 1..253.
Result<void> check_domain(std::string_view domain);

struct Credentials {
  std::string ca_file;            // PEM
  std::string certificate_file;
  std::string key_file;           // must not be readable by group or others
};

}  // namespace sami::transport
