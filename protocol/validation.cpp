#include "protocol/validation.h"

#include <fmt/format.h>

#include <algorithm>

namespace sami::protocol {

namespace {

std::string check_length(std::string_view field, std::size_t size, std::size_t minimum, std::size_t maximum) {
  if (size >= minimum && size <= maximum) return {};
  return fmt::format("{} has {} octets, expected {}..{}", field, size, minimum, maximum);
}

std::string check_address(std::string_view field, const std::string& address) {
  if (address.size() == 4 || address.size() == 16) return {};
  return fmt::format("{} has {} octets, expected 4 or 16", field, address.size());
}

std::string check_prefix(std::string_view field, const common::v1::Prefix& prefix) {
  if (auto error = check_address(field, prefix.address()); !error.empty()) return error;
  if (prefix.length() > prefix.address().size() * 8)
    return fmt::format("{} has length {}, expected at most {}", field, prefix.length(), prefix.address().size() * 8);
  for (std::size_t bit = prefix.length(); bit < prefix.address().size() * 8; ++bit) {
    if ((static_cast<unsigned char>(prefix.address()[bit / 8]) >> (7 - bit % 8)) & 1U)
      return fmt::format("{} has bits beyond its length {}, expected zeros", field, prefix.length());
  }
  return {};
}

template <typename Prefixes>
std::string check_prefixes(std::string_view field, const Prefixes& prefixes) {
  if (prefixes.size() > 1024) return fmt::format("{} has {} entries, expected at most 1024", field, prefixes.size());
  for (const auto& prefix : prefixes) {
    if (auto error = check_prefix(field, prefix); !error.empty()) return error;
  }
  return {};
}

std::string check_interface(const common::v1::Interface& nic) {
  if (auto e = check_length("subject.interfaces.vn_name", nic.vn_name().size(), 1, 64); !e.empty()) return e;
  if (nic.vnid() >= 1U << 24) return fmt::format("subject.interfaces.vnid is {}, expected 24 bits", nic.vnid());
  if (!nic.mac().empty() && nic.mac().size() != 6)
    return fmt::format("subject.interfaces.mac has {} octets, expected 6 or none", nic.mac().size());
  if (nic.addresses_size() > 64)
    return fmt::format("subject.interfaces.addresses has {} entries, expected at most 64", nic.addresses_size());
  for (const auto& address : nic.addresses()) {
    if (auto e = check_address("subject.interfaces.addresses", address); !e.empty()) return e;
  }
  return check_prefixes("subject.interfaces.learned_within", nic.learned_within());
}

}  // namespace

std::string check_subject(const common::v1::Subject& subject) {
  if (auto e = check_length("subject.id", subject.id().size(), 1, 128); !e.empty()) return e;
  if (subject.interfaces_size() < 1 || subject.interfaces_size() > 32)
    return fmt::format("subject.interfaces has {} entries, expected 1..32", subject.interfaces_size());
  for (const auto& nic : subject.interfaces()) {
    if (auto e = check_interface(nic); !e.empty()) return e;
  }
  return {};
}

std::string check_transfer(const common::v1::Transfer& transfer) {
  if (auto e = check_length("transfer.source_host", transfer.source_host().size(), 1, 128); !e.empty()) return e;
  if (auto e = check_length("transfer.destination_host", transfer.destination_host().size(), 1, 128); !e.empty())
    return e;
  if (auto e = check_length("transfer.source_context", transfer.source_context().size(), 0, 128); !e.empty()) return e;
  if (auto e = check_length("transfer.destination_context", transfer.destination_context().size(), 0, 128); !e.empty())
    return e;
  if (transfer.disposition() != common::v1::DISPOSITION_MOVE &&
      transfer.disposition() != common::v1::DISPOSITION_COPY_AND_RETAIN)
    return fmt::format("transfer.disposition is {}, expected MOVE or COPY_AND_RETAIN",
                       static_cast<int>(transfer.disposition()));
  if (auto e = check_prefixes("transfer.peers.include", transfer.peers().include()); !e.empty()) return e;
  return check_prefixes("transfer.peers.exclude", transfer.peers().exclude());
}

std::string check_announcement(const if_m_t::v1::Notify& notify, std::uint32_t maximum_transfers) {
  if (auto e = check_length("notification_id", notify.notification_id().size(), 1, 128); !e.empty()) return e;
  if (notify.sequence() == 0) return "sequence is 0, expected 1 or more";
  if (auto e = check_subject(notify.subject()); !e.empty()) return e;
  if (auto e = check_length("destination_place", notify.destination_place().size(), 1, 128); !e.empty()) return e;
  const auto count = static_cast<std::uint32_t>(notify.transfers_size());
  if (count < 1 || count > maximum_transfers)
    return fmt::format("transfers has {} entries, expected 1..{}", count, maximum_transfers);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto& transfer = notify.transfers(static_cast<int>(i));
    if (transfer.index() != i) return fmt::format("transfers[{}].index is {}, expected {}", i, transfer.index(), i);
    if (auto e = check_transfer(transfer); !e.empty()) return fmt::format("transfers[{}]: {}", i, e);
  }
  return {};
}

std::string context_name(const std::string& name) { return name.empty() ? "default" : name; }

bool is_retained(const common::v1::Transfer& transfer) {
  return transfer.source_host() == transfer.destination_host() &&
         context_name(transfer.source_context()) == context_name(transfer.destination_context());
}

bool begins_move(if_m_t::v1::Phase phase) {
  return phase == if_m_t::v1::PHASE_ANNOUNCED || phase == if_m_t::v1::PHASE_MOVED ||
         phase == if_m_t::v1::PHASE_PATH_FAILED;
}

}  // namespace sami::protocol
