// Connections for benchmarks: entries in tables that belong to nobody's VM, and TCP connections of a VM whose every
// segment is made here and crosses the firewall as any other does, without a socket at either end.
//
// Threading: any thread; every call blocks while the kernel works.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/result.h"

namespace sami::bench {

// While it lives net.netfilter.nf_conntrack_max of the machine is at least so high; then it is as it was.
class Room {
 public:
  static Result<Room> for_entries(std::size_t n);
  Room(Room&& other) noexcept : before_(std::exchange(other.before_, 0)) {}
  Room& operator=(Room&&) = delete;
  ~Room();

 private:
  explicit Room(std::size_t before) : before_(before) {}
  std::size_t before_;  // 0: it was high enough
};
// n entries that belong to nobody's VM.
Result<void> fill_table(const std::string& network_namespace, std::size_t n);

// The ends of TCP connections: a raw socket in each of two namespaces, where incoming TCP is dropped so that no kernel
// answers.
class Conversation {
 public:
  struct End {
    std::string network_namespace;
    std::string address;  // IPv4
  };
  static Result<Conversation> between(const End& client, const End& server);
  Conversation(Conversation&& other) noexcept;
  Conversation& operator=(Conversation&&) = delete;
  ~Conversation();

  // n handshakes.
  Result<void> open(std::size_t n);
  // Each of the first n connections: 100 octets from the client, and the server's acknowledgement.
  Result<void> talk(std::size_t n);

 private:
  Conversation(int client, int server, std::uint32_t client_address, std::uint32_t server_address);
  Result<void> send(std::size_t connection, bool from_client, std::uint8_t flags, std::size_t octets);

  struct Connection {
    std::uint32_t client_sequence = 1'000, server_sequence = 500'000;
  };
  int client_ = -1, server_ = -1;
  std::uint32_t client_address_ = 0, server_address_ = 0;  // network order
  std::vector<Connection> connections_;
};

}  // namespace sami::bench
