// What both ends of a gRPC connection are made with: credentials, limits, and words for what goes wrong. Private to
// this folder. TLS 1.3: gRPC 1.51 has no setting for it, so the TLS 1.2 cipher list is set to what nobody can
// negotiate (PSK without a key) through GRPC_SSL_CIPHER_SUITES, which does not touch TLS 1.3.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "interfaces/transport/transport.h"

namespace sami::transport {

// Called on gRPC's threads for a call that is refused before its method runs: who and why.
using Refusal = std::function<void(std::string peer, std::string reason)>;

// Errors: as pki::check_credentials; InvalidInput: not a SOM's certificate. `domain` gets the server's own.
Result<std::shared_ptr<grpc::ServerCredentials>> server_credentials(const Credentials& credentials, std::string& domain,
                                                                    Refusal refused);
// The server must be spiffe://<domain of our certificate>/sami/som/<master_name>.
Result<std::shared_ptr<grpc::ChannelCredentials>> channel_credentials(const Credentials& credentials,
                                                                      const std::string& master_name);
grpc::ChannelArguments channel_arguments(const Limits& limits);

// The identity a verified peer showed. Error: InvalidInput: none, or not one.
Result<Identity> peer_identity(const grpc::AuthContext& context);

}  // namespace sami::transport
