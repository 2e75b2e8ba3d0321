// OpenSSL 3 behind owning pointers. Private to pki.cpp.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/result.h"

namespace sami::pki::openssl {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const { Free(object); }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using X509Certificate = std::unique_ptr<X509, Deleter<X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Deleter<X509_EXTENSION_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Deleter<GENERAL_NAMES_free>>;
struct StackDeleter {
  void operator()(STACK_OF(X509)* stack) const { sk_X509_free(stack); }  // its certificates belong to others
};
using Stack = std::unique_ptr<STACK_OF(X509), StackDeleter>;
using Store = std::unique_ptr<X509_STORE, Deleter<X509_STORE_free>>;
using Number = std::unique_ptr<BIGNUM, Deleter<BN_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Deleter<X509_STORE_CTX_free>>;

// "<what>: <OpenSSL's words>", and empties OpenSSL's queue of errors. Kind Failed.
tl::unexpected<Error> failed(const std::string& what);

// All of a PEM file, in its order; empty: there is none. OpenSSL's queue of errors is emptied.
std::vector<X509Certificate> parse_certificates(std::string_view pem);
// Null: it is not one.
Key parse_key(std::string_view pem);
std::string to_pem(X509& certificate);
std::string to_pem(EVP_PKEY& key);

std::string common_name(const X509_NAME& name);

}  // namespace sami::pki::openssl
