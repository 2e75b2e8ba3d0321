#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "runtime/config.h"

namespace sami {
namespace {

tl::unexpected<Error> unexpected_text(std::string_view text, std::string_view expected) {
  return failure(ErrorKind::InvalidInput, fmt::format("\"{}\": expected {}", text, expected));
}

template <typename Number>
bool parse_number(std::string_view text, Number& value, int base = 10) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size();
}

bool is_host_name(std::string_view text) {
  return !text.empty() && text.size() <= 253 && text.front() != '-' && text.front() != '.' &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
         });
}

}  // namespace

Result<std::string> parse_address(std::string_view text) {
  const std::string terminated(text);
  std::string octets(16, '\0');
  if (terminated.find('\0') == std::string::npos) {
    if (inet_pton(AF_INET, terminated.c_str(), octets.data()) == 1) return octets.substr(0, 4);
    if (inet_pton(AF_INET6, terminated.c_str(), octets.data()) == 1) return octets;
  }
  return unexpected_text(text, "an IPv4 or IPv6 address");
}

Result<AddressPrefix> parse_prefix(std::string_view text) {
  constexpr std::string_view expected = "a prefix as 10.0.0.0/8 or 2001:db8::/32, no bits set beyond its length";
  const std::size_t slash = text.find('/');
  const auto address = parse_address(text.substr(0, slash));
  if (!address) return unexpected_text(text, expected);
  AddressPrefix prefix{*address, static_cast<std::uint32_t>(address->size() * 8)};
  if (slash != std::string_view::npos) {
    std::uint32_t length = 0;
    if (!parse_number(text.substr(slash + 1), length) || length > prefix.length) return unexpected_text(text, expected);
    prefix.length = length;
  }
  for (std::uint32_t bit = prefix.length; bit < prefix.address.size() * 8; ++bit)
    if ((static_cast<unsigned char>(prefix.address[bit / 8]) >> (7 - bit % 8) & 1) != 0)
      return unexpected_text(text, expected);
  return prefix;
}

Result<std::string> parse_mac(std::string_view text) {
  std::string octets;
  bool good = text.size() == 17;
  for (std::size_t i = 0; good && i < 17; i += 3) {
    std::uint8_t octet = 0;
    good = parse_number(text.substr(i, 2), octet, 16) && (i == 15 || text[i + 2] == ':');
    octets.push_back(static_cast<char>(octet));
  }
  if (!good) return unexpected_text(text, "a MAC address as 02:00:00:00:00:01");
  return octets;
}

Result<void> check_endpoint(std::string_view text, bool any_port) {
  constexpr std::string_view expected = "host:port, as 192.0.2.1:7500 or [2001:db8::1]:7500";
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return unexpected_text(text, expected);
  std::uint16_t port = 0;
  if (!parse_number(text.substr(colon + 1), port) || (port == 0 && !any_port)) return unexpected_text(text, expected);
  const std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) {
    const auto address = parse_address(host.substr(1, host.size() - 2));
    if (address && address->size() == 16) return {};
  } else if (is_host_name(host)) {
    return {};
  }
  return unexpected_text(text, expected);
}

}  // namespace sami
