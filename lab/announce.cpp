#include "lab/announce.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <netpacket/packet.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lab/namespace.h"

namespace sami::lab {
namespace {

ether_arp gratuitous_request(const unsigned char* mac, in_addr_t address) {
  ether_arp packet{};
  packet.arp_hrd = htons(ARPHRD_ETHER);
  packet.arp_pro = htons(ETH_P_IP);
  packet.arp_hln = ETH_ALEN;
  packet.arp_pln = sizeof address;
  packet.arp_op = htons(ARPOP_REQUEST);
  std::memcpy(packet.arp_sha, mac, ETH_ALEN);
  std::memcpy(packet.arp_spa, &address, sizeof address);
  std::memcpy(packet.arp_tpa, &address, sizeof address);
  return packet;
}

Result<void> send_one(int packet_socket, const std::string& device, const std::string& address) {
  in_addr binary{};
  if (::inet_pton(AF_INET, address.c_str(), &binary) != 1) {
    return failure(ErrorKind::InvalidInput, fmt::format("'{}' is not an IPv4 address", address));
  }
  ifreq request{};
  device.copy(request.ifr_name, IFNAMSIZ - 1);
  if (::ioctl(packet_socket, SIOCGIFHWADDR, &request) != 0) {
    return failure(ErrorKind::InvalidInput, fmt::format("no interface {}", device), errno);
  }
  unsigned char mac[ETH_ALEN];
  std::memcpy(mac, request.ifr_hwaddr.sa_data, sizeof mac);
  const ether_arp packet = gratuitous_request(mac, binary.s_addr);
  sockaddr_ll everyone{};
  everyone.sll_family = AF_PACKET;
  everyone.sll_protocol = htons(ETH_P_ARP);
  everyone.sll_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
  everyone.sll_halen = ETH_ALEN;
  std::memset(everyone.sll_addr, 0xff, ETH_ALEN);
  const auto sent =
      ::sendto(packet_socket, &packet, sizeof packet, 0, reinterpret_cast<const sockaddr*>(&everyone), sizeof everyone);
  if (sent == static_cast<ssize_t>(sizeof packet)) return {};
  return failure(ErrorKind::Failed, fmt::format("cannot announce on {}: {}", device, std::strerror(errno)), errno);
}

Result<void> send_all(const std::vector<std::pair<std::string, std::string>>& addresses) {
  const int packet_socket = ::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (packet_socket < 0) return failure(ErrorKind::Failed, "cannot open a packet socket", errno);
  Result<void> outcome;
  for (const auto& [device, address] : addresses) {
    if (outcome) outcome = send_one(packet_socket, device, address);
  }
  ::close(packet_socket);  // takes the kernel some milliseconds
  return outcome;
}

}  // namespace

Result<void> announce_addresses(const std::string& network_namespace,
                                const std::vector<std::pair<std::string, std::string>>& addresses) {
  Result<void> sent;
  auto entered = inside_namespace(network_namespace, [&] { sent = send_all(addresses); });
  return entered ? sent : entered;
}

}  // namespace sami::lab
