// Channels for clients of the unary services (`sami`). They connect when first used; a call on one that cannot connect
// fails with UNAVAILABLE. explain() turns that into a sentence.
#pragma once

#include <memory>
#include <string>

#include "interfaces/transport/identity.h"
#include "runtime/result.h"

namespace grpc {
class Channel;
class Status;
}  // namespace grpc

namespace sami::transport {

// mTLS to the SOM at "host:port". The server must be spiffe://<domain of our certificate>/sami/som/<master_name>.
// Credentials that cannot be used make a channel on which every call fails with INVALID_ARGUMENT "Invalid
// credentials."; pki::check_credentials() says why.
std::shared_ptr<grpc::Channel> tls_channel(const std::string& target, const Credentials& credentials,
                                           const std::string& master_name);
// To a daemon's local control socket.
std::shared_ptr<grpc::Channel> unix_channel(const std::string& path);

// What a failed call means, for a human: gRPC's "Socket closed" may be a refused certificate.
std::string explain(const grpc::Status& status, const std::string& target);

}  // namespace sami::transport
