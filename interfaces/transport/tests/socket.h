// A plain TCP client for tests: what a stranger on the network can do.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace sami::transport::testing {

class Socket {
 public:
  explicit Socket(int number = -1) : number_(number) {}   // owns it
  ~Socket();
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;

  static Socket connect_to(int port);        // 127.0.0.1
  bool connected() const { return number_ >= 0; }
  bool send(std::string_view bytes) const;
  // True: the other end has closed it (what it sent before is thrown away). Does not block.
  bool closed_by_peer() const;
  int number() const { return number_; }

 private:
  int number_;
};

// Passes bytes between clients and a server until told to be silent; then it keeps the connections and passes nothing,
// as a broken link does. A thread of its own.
class Relay {
 public:
  explicit Relay(int server_port);
  ~Relay();
  int port() const { return port_; }
  void fall_silent();

 private:
  struct State;
  std::unique_ptr<State> state_;
  int port_ = 0;
};

// Negotiates at most this TLS version (OpenSSL's constant) with the server on the port, with these credentials (files;
// empty: none). Returns "" when the server took it and sent a byte, else the reason.
std::string tls_handshake(int port, int maximum_version, const std::string& certificate, const std::string& key);

}  // namespace sami::transport::testing
