#include "interfaces/transport/grpc_credentials.h"

#include <fmt/format.h>
#include <grpcpp/security/auth_metadata_processor.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <cstdlib>
#include <mutex>

#include "interfaces/transport/access.h"
#include "interfaces/transport/pki.h"
#include "runtime/file.h"

namespace sami::transport {
namespace {

constexpr unsigned certificate_refresh_seconds = 30;
constexpr std::size_t maximum_file = 256 << 10;

std::string text_of(grpc::string_ref text) { return {text.data(), text.size()}; }

void require_tls13() {
  static std::once_flag once;
  std::call_once(once, [] { setenv("GRPC_SSL_CIPHER_SUITES", "PSK-AES256-GCM-SHA384", 1); });
}

// Says no unless the server's certificate, already verified against the CA, carries exactly the expected identity.
class MasterVerifier final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  explicit MasterVerifier(std::string expected) : expected_(std::move(expected)) {}

  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
              grpc::Status* result) override {
    const auto names = request->uri_names();
    if (names.size() == 1 && text_of(names[0]) == expected_) {
      *result = grpc::Status::OK;
    } else {
      const std::string found = names.empty() ? "no identity" : text_of(names[0]);
      *result = {grpc::StatusCode::UNAUTHENTICATED, fmt::format("the server is {}: expected {}", found, expected_)};
    }
    return true;
  }
  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest*) override {}

 private:
  const std::string expected_;
};

// Looks at every call before its method runs. Sessions look for themselves: they know the peer's address.
class AccessProcessor final : public grpc::AuthMetadataProcessor {
 public:
  AccessProcessor(std::string domain, Refusal refused) : domain_(std::move(domain)), refused_(std::move(refused)) {}
  bool IsBlocking() const override { return false; }

  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* context, OutputMetadata*,
                       OutputMetadata*) override {
    const auto path = metadata.find(":path");
    const std::string method = path == metadata.end() ? "" : text_of(path->second);
    const auto caller = peer_identity(*context);
    const std::string session = "/Session";
    if (caller && method.size() > session.size() && method.substr(method.size() - session.size()) == session)
      return grpc::Status::OK;
    const Result<void> access = caller ? check_access(method, *caller, domain_) : tl::unexpected(caller.error());
    if (access) return grpc::Status::OK;
    refused_(caller ? caller->uri() : "unknown", access.error().message);
    return {grpc::StatusCode::PERMISSION_DENIED, access.error().message};
  }

 private:
  const std::string domain_;
  const Refusal refused_;
};

}  // namespace

Result<Identity> peer_identity(const grpc::AuthContext& context) {
  const auto names = context.FindPropertyValues("peer_uri");
  if (names.size() != 1) {
    return failure(ErrorKind::InvalidInput,
                   fmt::format("the certificate has {} URI names: expected one, spiffe://<domain>/sami/<role>/<name>",
                               names.size()));
  }
  return parse_identity(std::string_view(names[0].data(), names[0].size()));
}

Result<std::shared_ptr<grpc::ServerCredentials>> server_credentials(const Credentials& credentials, std::string& domain,
                                                                    Refusal refused) {
  require_tls13();
  const auto own = pki::check_credentials(credentials);
  if (!own) return tl::unexpected(own.error());
  if (own->identity.role != "som") {
    return failure(ErrorKind::InvalidInput, fmt::format("{} is {}: expected role som", credentials.certificate_file,
                                                        own->identity.uri()));
  }
  domain = own->identity.domain;
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          credentials.key_file, credentials.certificate_file, credentials.ca_file, certificate_refresh_seconds));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  auto result = grpc::experimental::TlsServerCredentials(options);
  result->SetAuthMetadataProcessor(std::make_shared<AccessProcessor>(domain, std::move(refused)));
  return result;
}

Result<std::shared_ptr<grpc::ChannelCredentials>> channel_credentials(const Credentials& credentials,
                                                                      const std::string& master_name) {
  require_tls13();
  const auto own = pki::check_credentials(credentials);
  if (!own) return tl::unexpected(own.error());
  if (auto good = check_name(master_name); !good) return tl::unexpected(good.error());
  std::string text[3];
  const std::string* files[] = {&credentials.ca_file, &credentials.key_file, &credentials.certificate_file};
  for (int i = 0; i < 3; ++i) {
    auto content = read_file(*files[i], maximum_file);
    if (!content) return tl::unexpected(content.error());
    text[i] = std::move(*content);
  }
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(std::make_shared<grpc::experimental::StaticDataCertificateProvider>(
      text[0], std::vector<grpc::experimental::IdentityKeyCertPair>{{text[1], text[2]}}));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_check_call_host(false);  // who it is counts, not by which address it was reached
  options.set_certificate_verifier(grpc::experimental::ExternalCertificateVerifier::Create<MasterVerifier>(
      Identity{own->identity.domain, "som", master_name}.uri()));
  return grpc::experimental::TlsCredentials(options);
}

grpc::ChannelArguments channel_arguments(const Limits& limits) {
  grpc::ChannelArguments arguments;
  const int keepalive = static_cast<int>(limits.keepalive.count());
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // an attempt inherits nothing from the one before
  // It bounds the time to connect as well.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, static_cast<int>(limits.first_message.count()));
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(limits.message_bytes));
  arguments.SetMaxSendMessageSize(-1);  // checked by send()
  return arguments;
}

}  // namespace sami::transport
