#include "interfaces/transport/openssl.h"

#include <openssl/err.h>
#include <openssl/pem.h>

namespace sami::pki::openssl {
namespace {

Bio memory(std::string_view text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

std::string content(BIO& bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(&bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

// Keys with a passphrase are refused instead of asking on the terminal.
int no_passphrase(char*, int, int, void*) { return -1; }

}  // namespace

tl::unexpected<Error> failed(const std::string& what) {
  char reason[256] = "unknown";
  if (const unsigned long code = ERR_peek_last_error(); code != 0) ERR_error_string_n(code, reason, sizeof reason);
  ERR_clear_error();
  return failure(ErrorKind::Failed, what + ": " + reason);
}

std::vector<X509Certificate> parse_certificates(std::string_view pem) {
  const Bio bio = memory(pem);
  std::vector<X509Certificate> certificates;
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr))
    certificates.emplace_back(certificate);
  ERR_clear_error();
  return certificates;
}

Key parse_key(std::string_view pem) {
  Key key(PEM_read_bio_PrivateKey(memory(pem).get(), nullptr, no_passphrase, nullptr));
  ERR_clear_error();
  return key;
}

std::string to_pem(X509& certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), &certificate);
  return content(*bio);
}

std::string to_pem(EVP_PKEY& key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PrivateKey(bio.get(), &key, nullptr, nullptr, 0, nullptr, nullptr);
  return content(*bio);
}

std::string common_name(const X509_NAME& name) {
  const int index = X509_NAME_get_index_by_NID(&name, NID_commonName, -1);
  if (index < 0) return "";
  unsigned char* text = nullptr;
  const int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(&name, index)));
  if (size < 0) return "";
  std::string result(reinterpret_cast<char*>(text), static_cast<std::size_t>(size));
  OPENSSL_free(text);
  return result;
}

}  // namespace sami::pki::openssl
