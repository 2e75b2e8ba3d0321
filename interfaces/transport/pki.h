// A small certificate authority in a folder, for those who have none: ca.pem, ca.key, and <name>.pem, <name>.key per
// identity. P-256, X.509 v3. Any other CA works as well: what counts is the URI SAN (identity.h). Blocking.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "interfaces/transport/identity.h"
#include "runtime/clock.h"
#include "runtime/config.h"
#include "runtime/result.h"

namespace sami::pki {

struct Certificate {
  transport::Identity identity;
  WallTime not_before = 0;
  WallTime not_after = 0;
  std::vector<std::string> hosts;    // DNS names and addresses it may be reached at
  std::string issuer;                // common name
};

struct Files {
  std::string certificate;
  std::string key;                   // mode 0600
};

// Makes <folder>/ca.pem and ca.key (10 years; the folder 0700 if it is not there). Nothing is ever overwritten.
// Errors: InvalidInput (domain, files exist), Failed.
Result<Files> make_authority(const std::string& folder, const std::string& domain);

// Makes <folder>/<name>.pem and <name>.key (named <role>-<name> for operators and viewers), signed by the folder's CA;
// for TLS clients and servers. hosts: DNS names or addresses. Errors: InvalidInput (role, name, host, days of 1..3650,
// files exist), Corrupt (the CA's files), Failed.
Result<Files> issue(const std::string& folder, const std::string& role, const std::string& name, std::uint32_t days,
                    const std::vector<std::string>& hosts);

// Errors: InvalidInput: not a certificate, or without exactly one URI SAN that is an identity; Failed.
Result<Certificate> read_certificate(const std::string& path);

// Everything that would make TLS fail later: files readable, key private and of the certificate, certificate of the CA,
// in its time, with an identity. Returns the certificate. Errors: InvalidInput, saying which file and why; Failed.
Result<Certificate> check_credentials(const transport::Credentials& credentials);
// The same of a configuration's section `pki`, whose certificate must be `identity`'s: what is wrong is noted there.
void check_configured(Config& config, const transport::Credentials& credentials, const std::string& identity);

}  // namespace sami::pki
