#include "interfaces/transport/pki.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/ec.h>
#include <openssl/rand.h>
#include <openssl/x509_vfy.h>

#include <algorithm>
#include <ctime>

#include "interfaces/transport/openssl.h"
#include "runtime/config.h"
#include "runtime/file.h"

namespace sami::pki {
namespace {

using namespace openssl;  // NOLINT: the private half of this file

constexpr std::size_t maximum_file = 256 << 10;
constexpr int authority_days = 3650;

struct Pair {
  X509Certificate certificate;
  Key key;
};

Result<void> add_extension(X509& certificate, X509& issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, &issuer, &certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  if (!extension || X509_add_ext(&certificate, extension.get(), -1) != 1)
    return failed(fmt::format("extension {} \"{}\"", OBJ_nid2sn(nid), value));
  return {};
}

// A certificate with a fresh key, named and dated, not yet signed.
Result<Pair> make_unsigned(const std::string& common_name_text, const std::string& organization, int days) {
  Pair pair{X509Certificate(X509_new()), Key(EVP_EC_gen("P-256"))};
  if (!pair.certificate || !pair.key) return failed("cannot make a key");
  X509& certificate = *pair.certificate;
  // 127 random bits: unique without a register (CA/Browser Forum asks for 64).
  unsigned char serial[16];
  if (RAND_bytes(serial, sizeof serial) != 1) return failed("no randomness");
  serial[0] &= 0x7f;
  const Number number(BN_bin2bn(serial, sizeof serial, nullptr));
  BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(&certificate));
  X509_set_version(&certificate, X509_VERSION_3);
  X509_gmtime_adj(X509_getm_notBefore(&certificate), -300);  // clocks of hosts differ
  X509_time_adj_ex(X509_getm_notAfter(&certificate), days, 0, nullptr);
  X509_set_pubkey(&certificate, pair.key.get());
  X509_NAME* name = X509_get_subject_name(&certificate);
  const auto add = [&](const char* field, const std::string& value) {
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(value.data()),
                                      static_cast<int>(value.size()), -1, 0) == 1;
  };
  if (!add("O", organization.substr(0, 64)) || !add("CN", common_name_text))
    return failed("cannot name the certificate");
  return pair;
}

Result<void> sign(Pair& pair, X509& issuer, EVP_PKEY& issuer_key,
                  const std::vector<std::pair<int, std::string>>& extensions) {
  X509_set_issuer_name(pair.certificate.get(), X509_get_subject_name(&issuer));
  for (const auto& [nid, value] : extensions)
    if (auto added = add_extension(*pair.certificate, issuer, nid, value); !added) return added;
  if (X509_sign(pair.certificate.get(), &issuer_key, EVP_sha256()) == 0) return failed("cannot sign");
  return {};
}

// The key first: a certificate without a key would look whole.
Result<Files> write_pair(const Pair& pair, const std::string& stem) {
  Files files{stem + ".pem", stem + ".key"};
  if (read_file(files.certificate, maximum_file)) {
    return failure(ErrorKind::InvalidInput,
                   files.certificate + " exists already: expected a new one, nothing is overwritten");
  }
  if (auto written = create_file(files.key, to_pem(*pair.key), 0600); !written) return tl::unexpected(written.error());
  if (auto written = create_file(files.certificate, to_pem(*pair.certificate), 0644); !written)
    return tl::unexpected(written.error());
  return files;
}

// At least one.
Result<std::vector<X509Certificate>> load_certificates(const std::string& path) {
  const auto pem = read_file(path, maximum_file);
  if (!pem) return tl::unexpected(pem.error());
  auto certificates = parse_certificates(*pem);
  if (certificates.empty()) return failure(ErrorKind::InvalidInput, path + " is not a certificate: expected PEM");
  return certificates;
}
Result<X509Certificate> load_certificate(const std::string& path) {
  auto certificates = load_certificates(path);
  if (!certificates) return tl::unexpected(certificates.error());
  return std::move(certificates->front());
}

Result<Key> load_key(const std::string& path) {
  const auto pem = read_private_file(path, maximum_file);
  if (!pem) return tl::unexpected(pem.error());
  Key key = parse_key(*pem);
  if (!key) return failure(ErrorKind::InvalidInput, path + " is not a private key: expected PEM without a passphrase");
  return key;
}

Result<std::string> subject_alternative_name(const std::string& host) {
  if (parse_address(host)) return "IP:" + host;
  if (host.find('[') == std::string::npos && check_endpoint(host + ":1", false)) return "DNS:" + host;
  return failure(ErrorKind::InvalidInput, fmt::format("host \"{}\": expected a DNS name or an address", host));
}

WallTime wall_time(const ASN1_TIME& time) {
  std::tm parts = {};
  ASN1_TIME_to_tm(&time, &parts);
  return static_cast<WallTime>(timegm(&parts)) * 1'000'000;
}

std::string text_of(const ASN1_STRING& text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(&text)),
          static_cast<std::size_t>(ASN1_STRING_length(&text))};
}

std::string address_text(const std::string& octets) {
  char text[INET6_ADDRSTRLEN] = "";
  if (octets.size() == 4 || octets.size() == 16)
    inet_ntop(octets.size() == 4 ? AF_INET : AF_INET6, octets.data(), text, sizeof text);
  return text;
}

Names alternative_names_of(X509& certificate) {
  return Names(static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)));
}

// Of an authority: its URI name is spiffe://<domain>.
std::string domain_of(X509& authority) {
  const Names names = alternative_names_of(authority);
  const GENERAL_NAME* name = names ? sk_GENERAL_NAME_value(names.get(), 0) : nullptr;
  const std::string uri =
      name != nullptr && name->type == GEN_URI ? text_of(*name->d.uniformResourceIdentifier) : std::string();
  return uri.rfind("spiffe://", 0) == 0 ? uri.substr(9) : "";
}

Result<Certificate> describe(X509& certificate, const std::string& path) {
  Certificate result;
  result.not_before = wall_time(*X509_get0_notBefore(&certificate));
  result.not_after = wall_time(*X509_get0_notAfter(&certificate));
  result.issuer = common_name(*X509_get_issuer_name(&certificate));
  std::vector<std::string> uris;
  const Names names = alternative_names_of(certificate);
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_URI) uris.push_back(text_of(*name->d.uniformResourceIdentifier));
    if (name->type == GEN_DNS) result.hosts.push_back(text_of(*name->d.dNSName));
    if (name->type == GEN_IPADD) result.hosts.push_back(address_text(text_of(*name->d.iPAddress)));
  }
  if (uris.size() != 1) {
    return failure(
        ErrorKind::InvalidInput,
        fmt::format("{} has {} URI names: expected one, spiffe://<domain>/sami/<role>/<name>", path, uris.size()));
  }
  auto identity = transport::parse_identity(uris[0]);
  if (!identity) return failure(ErrorKind::InvalidInput, path + ": " + identity.error().message);
  result.identity = std::move(*identity);
  return result;
}

// chain: the certificate and what stands between it and one of the authorities.
Result<void> verify(const std::vector<X509Certificate>& chain, const std::vector<X509Certificate>& authorities,
                    const transport::Credentials& credentials) {
  const Store store(X509_STORE_new());
  const StoreContext context(X509_STORE_CTX_new());
  const Stack between(sk_X509_new_null());
  for (std::size_t i = 1; i < chain.size(); ++i) sk_X509_push(between.get(), chain[i].get());
  for (const auto& authority : authorities) X509_STORE_add_cert(store.get(), authority.get());
  if (X509_STORE_CTX_init(context.get(), store.get(), chain[0].get(), between.get()) != 1)
    return failed("cannot verify " + credentials.certificate_file);
  if (X509_verify_cert(context.get()) == 1) return {};
  const int code = X509_STORE_CTX_get_error(context.get());
  return failure(ErrorKind::InvalidInput, fmt::format("{} does not hold against {}: {}", credentials.certificate_file,
                                                      credentials.ca_file, X509_verify_cert_error_string(code)));
}

}  // namespace

Result<Files> make_authority(const std::string& folder, const std::string& domain) {
  if (auto good = transport::check_domain(domain); !good) return tl::unexpected(good.error());
  if (auto made = make_private_folder(folder); !made) return tl::unexpected(made.error());
  auto pair = make_unsigned("SAMI CA", domain, authority_days);
  if (!pair) return tl::unexpected(pair.error());
  const auto done = sign(*pair, *pair->certificate, *pair->key,
                         {{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                          {NID_key_usage, "critical,keyCertSign,cRLSign"},
                          {NID_subject_key_identifier, "hash"},
                          {NID_subject_alt_name, "URI:spiffe://" + domain}});
  if (!done) return tl::unexpected(done.error());
  return write_pair(*pair, folder + "/ca");
}

Result<Files> issue(const std::string& folder, const std::string& role, const std::string& name, std::uint32_t days,
                    const std::vector<std::string>& hosts) {
  for (const auto& good : {transport::check_role(role), transport::check_name(name)})
    if (!good) return tl::unexpected(good.error());
  if (days < 1 || days > static_cast<std::uint32_t>(authority_days))
    return failure(ErrorKind::InvalidInput, fmt::format("{} days: expected 1 to {}", days, authority_days));
  if (name == "ca") return failure(ErrorKind::InvalidInput, "name \"ca\": expected another one, it is the authority's");
  auto authority = load_certificate(folder + "/ca.pem");
  if (!authority) return tl::unexpected(authority.error());
  auto authority_key = load_key(folder + "/ca.key");
  if (!authority_key) return tl::unexpected(authority_key.error());
  if (X509_check_private_key(authority->get(), authority_key->get()) != 1)
    return failure(ErrorKind::Corrupt, folder + "/ca.key is not the key of ca.pem");
  const std::string domain = domain_of(**authority);
  if (domain.empty())
    return failure(ErrorKind::Corrupt,
                   folder + "/ca.pem names no domain: expected a certificate made by `sami pki init`");
  const transport::Identity identity{domain, role, name};
  std::string alternative_names = "URI:" + identity.uri();
  for (const std::string& host : hosts) {
    const auto entry = subject_alternative_name(host);
    if (!entry) return tl::unexpected(entry.error());
    alternative_names += "," + *entry;
  }
  auto pair = make_unsigned(name, identity.domain, static_cast<int>(days));
  if (!pair) return tl::unexpected(pair.error());
  const auto done = sign(*pair, **authority, **authority_key,
                         {{NID_basic_constraints, "critical,CA:FALSE"},
                          {NID_key_usage, "critical,digitalSignature"},
                          {NID_ext_key_usage, "clientAuth,serverAuth"},
                          {NID_subject_key_identifier, "hash"},
                          {NID_authority_key_identifier, "keyid"},
                          {NID_subject_alt_name, alternative_names}});
  if (!done) return tl::unexpected(done.error());
  const bool person = role == "operator" || role == "viewer";
  return write_pair(*pair, folder + "/" + (person ? role + "-" : "") + name);
}

Result<Certificate> read_certificate(const std::string& path) {
  auto certificate = load_certificate(path);
  if (!certificate) return tl::unexpected(certificate.error());
  return describe(**certificate, path);
}

Result<Certificate> check_credentials(const transport::Credentials& credentials) {
  auto authorities = load_certificates(credentials.ca_file);
  if (!authorities) return tl::unexpected(authorities.error());
  auto chain = load_certificates(credentials.certificate_file);
  if (!chain) return tl::unexpected(chain.error());
  auto key = load_key(credentials.key_file);
  if (!key) return tl::unexpected(key.error());
  if (X509_check_private_key(chain->front().get(), key->get()) != 1) {
    return failure(ErrorKind::InvalidInput,
                   fmt::format("{} is not the key of {}", credentials.key_file, credentials.certificate_file));
  }
  if (auto good = verify(*chain, *authorities, credentials); !good) return tl::unexpected(good.error());
  return describe(*chain->front(), credentials.certificate_file);
}

void check_configured(Config& config, const transport::Credentials& credentials, const std::string& identity) {
  const auto certificate = check_credentials(credentials);
  if (!certificate) {
    config.root().reject("pki", certificate.error().message, "the certificate and key of " + identity);
  } else if (certificate->identity.uri() != identity) {
    config.root().section("pki").reject("certificate", "the identity " + certificate->identity.uri(),
                                        identity + " (the role of this daemon, the domain and name above)");
  }
}

}  // namespace sami::pki
