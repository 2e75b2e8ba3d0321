#include "interfaces/transport/tests/socket.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace sami::transport::testing {
namespace {

sockaddr_in loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

}  // namespace

Socket::~Socket() {
  if (number_ >= 0) close(number_);
}
Socket::Socket(Socket&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

Socket Socket::connect_to(int port) {
  Socket result(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(port);
  if (connect(result.number_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return Socket();
  return result;
}

bool Socket::send(std::string_view bytes) const {
  return ::send(number_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

bool Socket::closed_by_peer() const {
  char buffer[4096];
  while (true) {
    const ssize_t count = recv(number_, buffer, sizeof buffer, MSG_DONTWAIT);
    if (count > 0) continue;
    return count == 0 || (errno != EAGAIN && errno != EINTR);
  }
}

struct Relay::State {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int wakeup = eventfd(0, EFD_CLOEXEC);
  int server_port = 0;
  std::atomic<bool> silent = false;
  std::vector<std::pair<Socket, Socket>> pairs;
  std::thread thread;

  static void pass(const Socket& from, const Socket& to) {
    char buffer[65536];
    const ssize_t count = recv(from.number(), buffer, sizeof buffer, 0);
    if (count > 0) to.send(std::string_view(buffer, static_cast<std::size_t>(count)));
    else shutdown(to.number(), SHUT_RDWR);
  }

  void run() {
    while (true) {
      std::vector<pollfd> waiting = {{wakeup, POLLIN, 0}, {listener, POLLIN, 0}};
      for (const auto& [client, server] : pairs) {
        const short events = silent ? 0 : POLLIN;
        waiting.push_back({client.number(), events, 0});
        waiting.push_back({server.number(), events, 0});
      }
      // Ends that hang up are seen again and again once silent: only the first two are waited for then.
      poll(waiting.data(), silent ? 2 : waiting.size(), -1);
      if (waiting[0].revents != 0) {
        eventfd_t value = 0;
        eventfd_read(wakeup, &value);
        if (value > 1000) return;
        continue;
      }
      for (std::size_t i = 2; i < waiting.size() && !silent; ++i) {
        const auto& pair = pairs[(i - 2) / 2];
        if (waiting[i].revents == 0) continue;
        if (i % 2 == 0) pass(pair.first, pair.second);
        else pass(pair.second, pair.first);
      }
      if (waiting[1].revents != 0) accept_one();
    }
  }

  void accept_one();
};

void Relay::State::accept_one() {
  const int accepted = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (accepted < 0) return;
  pairs.emplace_back(Socket(accepted), Socket::connect_to(server_port));
}

Relay::Relay(int server_port) : state_(std::make_unique<State>()) {
  state_->server_port = server_port;
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  bind(state_->listener, reinterpret_cast<sockaddr*>(&address), sizeof address);
  listen(state_->listener, 16);
  getsockname(state_->listener, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  state_->thread = std::thread([state = state_.get()] { state->run(); });
}

Relay::~Relay() {
  eventfd_write(state_->wakeup, 1001);
  state_->thread.join();
  close(state_->listener);
  close(state_->wakeup);
}

void Relay::fall_silent() {
  state_->silent = true;
  eventfd_write(state_->wakeup, 1);
}

std::string tls_handshake(int port, int maximum_version, const std::string& certificate, const std::string& key) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  SSL_CTX_set_max_proto_version(context.get(), maximum_version);
  if (!certificate.empty()) {
    SSL_CTX_use_certificate_file(context.get(), certificate.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context.get(), key.c_str(), SSL_FILETYPE_PEM);
  }
  const unsigned char http2[] = "\x02h2";
  SSL_CTX_set_alpn_protos(context.get(), http2, 3);
  const Socket socket = Socket::connect_to(port);
  const timeval patience = {10, 0};
  setsockopt(socket.number(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const std::unique_ptr<SSL, decltype(&SSL_free)> session(SSL_new(context.get()), SSL_free);
  SSL_set_fd(session.get(), socket.number());
  char byte = 0;
  // With TLS 1.3 the client learns only by reading that its certificate was refused; a server that takes it sends
  // SETTINGS.
  if (SSL_connect(session.get()) == 1 && SSL_read(session.get(), &byte, 1) == 1) return "";
  char reason[256] = "closed";
  if (const unsigned long code = ERR_get_error(); code != 0) ERR_error_string_n(code, reason, sizeof reason);
  ERR_clear_error();
  return reason;
}

}  // namespace sami::transport::testing
