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

ether_arp gratuitous_request(const unsigned char* mac, in_addr address) {
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

Result<void> send_here(const std::string& device, in_addr address) {
  const int packet_socket = ::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (packet_socket < 0) return failure(ErrorKind::Failed, "cannot open a packet socket", errno);
  ifreq request{};
  device.copy(request.ifr_name, IFNAMSIZ - 1);
  if (::ioctl(packet_socket, SIOCGIFHWADDR, &request) != 0) {
    ::close(packet_socket);
    return failure(ErrorKind::InvalidInput, fmt::format("no interface {}", device), errno);
  }
  unsigned char mac[ETH_ALEN];
  std::memcpy(mac, request.ifr_hwaddr.sa_data, sizeof mac);
  const ether_arp packet = gratuitous_request(mac, address);
  sockaddr_ll everyone{};
  everyone.sll_family = AF_PACKET;
  everyone.sll_protocol = htons(ETH_P_ARP);
  everyone.sll_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
  everyone.sll_halen = ETH_ALEN;
  std::memset(everyone.sll_addr, 0xff, ETH_ALEN);
  const auto sent = ::sendto(packet_socket, &packet, sizeof packet, 0, reinterpret_cast<const sockaddr*>(&everyone),
                             sizeof everyone);
  const int reason = errno;
  ::close(packet_socket);
  if (sent != static_cast<ssize_t>(sizeof packet)) {
    return failure(ErrorKind::Failed, fmt::format("cannot announce on {}: {}", device, std::strerror(reason)), reason);
  }
  return {};
}

}  // namespace

Result<void> announce_address(const std::string& network_namespace, const std::string& device,
                              const std::string& address) {
  in_addr binary{};
  if (::inet_pton(AF_INET, address.c_str(), &binary) != 1) {
    return failure(ErrorKind::InvalidInput, fmt::format("'{}' is not an IPv4 address", address));
  }
  Result<void> sent;
  auto entered = inside_namespace(network_namespace, [&] { sent = send_here(device, binary); });
  return entered ? sent : entered;
}

}  // namespace sami::lab
