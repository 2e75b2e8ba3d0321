#include "interfaces/transport/channel.h"

#include <fmt/format.h>

#include "interfaces/transport/grpc_credentials.h"

namespace sami::transport {
namespace {

// Of the unary services: a list of every migration is longer than a session's message may be.
constexpr int maximum_reply = 64 << 20;

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

std::shared_ptr<grpc::Channel> tls_channel(const std::string& target, const Credentials& credentials,
                                           const std::string& master_name) {
  const auto made = channel_credentials(credentials, master_name);
  if (!made) return grpc::CreateChannel(target, nullptr);  // gRPC's channel that fails every call
  grpc::ChannelArguments arguments = channel_arguments(Limits{});
  arguments.SetMaxReceiveMessageSize(maximum_reply);
  return grpc::CreateCustomChannel(target, *made, arguments);
}

std::shared_ptr<grpc::Channel> unix_channel(const std::string& path) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(maximum_reply);
  return grpc::CreateCustomChannel("unix:" + path, grpc::InsecureChannelCredentials(), arguments);
}

std::string explain(const grpc::Status& status, const std::string& target) {
  const std::string& words = status.error_message();
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE)
    return words.empty() ? fmt::format("{} ended it without a word", target) : words;
  if (has(words, "No such file or directory")) return fmt::format("{} is not there: does the daemon run?", target);
  if (has(words, "Connection refused")) return fmt::format("nobody listens on {}: does the daemon run?", target);
  if (has(words, "Permission denied")) return fmt::format("{} may not be opened by this user", target);
  if (has(words, "expected spiffe://")) {
    const std::size_t begin = words.find("the server is ");
    return fmt::format("{} is the wrong server: {}", target, begin == std::string::npos ? words : words.substr(begin));
  }
  if (has(words, "CERTIFICATE_VERIFY_FAILED") || has(words, "certificate verify failed"))
    return fmt::format("the certificate of {} does not hold against our CA ({})", target, words);
  if (has(words, "WRONG_VERSION_NUMBER") || has(words, "wrong version number"))
    return fmt::format("{} does not speak TLS ({})", target, words);
  if (has(words, "Socket closed") || has(words, "Connection reset") || has(words, "Broken pipe") ||
      has(words, "alert")) {
    return fmt::format(
        "{} closed the connection: it went away, or it refused our certificate (another CA, expired); its "
        "log says which ({})",
        target, words);
  }
  return fmt::format("cannot reach {}: {}", target, words);
}

}  // namespace sami::transport
