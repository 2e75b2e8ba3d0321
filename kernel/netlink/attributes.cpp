#include "kernel/netlink/attributes.h"

#include <endian.h>
#include <fmt/format.h>
#include <linux/netlink.h>

#include <cstring>

namespace sami::netlink {

namespace {

constexpr std::size_t kHeader = sizeof(nlattr);

constexpr std::size_t aligned(std::size_t length) { return (length + 3) & ~std::size_t{3}; }

template <typename T>
std::optional<T> fixed(const std::optional<Bytes>& value) {
  if (!value || value->size() < sizeof(T)) return std::nullopt;
  T number{};
  std::memcpy(&number, value->data(), sizeof number);
  return number;
}

template <typename T>
Bytes octets(const T& value) {
  return {reinterpret_cast<const std::uint8_t*>(&value), sizeof value};
}

}  // namespace

Result<AttributeTable> AttributeTable::parse(Bytes bytes, std::string_view what) {
  AttributeTable table;
  std::size_t offset = 0;
  while (bytes.size() - offset >= kHeader) {
    nlattr header{};
    std::memcpy(&header, bytes.data() + offset, kHeader);
    if (header.nla_len < kHeader || header.nla_len > bytes.size() - offset) {
      return failure(ErrorKind::Corrupt, fmt::format("{}: attribute at octet {} has length {}, {} octets are left",
                                                     what, offset, header.nla_len, bytes.size() - offset));
    }
    const auto type = static_cast<std::uint16_t>(header.nla_type & NLA_TYPE_MASK);
    if (type <= kMaximumType) table.values_[type] = bytes.subspan(offset + kHeader, header.nla_len - kHeader);
    offset += std::min(aligned(header.nla_len), bytes.size() - offset);
  }
  if (offset != bytes.size()) {
    return failure(ErrorKind::Corrupt,
                   fmt::format("{}: {} octets after the last attribute", what, bytes.size() - offset));
  }
  return table;
}

std::optional<std::uint8_t> AttributeTable::u8(std::uint16_t type) const { return fixed<std::uint8_t>(get(type)); }

std::optional<std::uint16_t> AttributeTable::be16(std::uint16_t type) const {
  const auto value = fixed<std::uint16_t>(get(type));
  return value ? std::optional(static_cast<std::uint16_t>(be16toh(*value))) : std::nullopt;
}

std::optional<std::uint32_t> AttributeTable::be32(std::uint16_t type) const {
  const auto value = fixed<std::uint32_t>(get(type));
  return value ? std::optional<std::uint32_t>(be32toh(*value)) : std::nullopt;
}

std::optional<std::uint64_t> AttributeTable::be64(std::uint16_t type) const {
  const auto value = fixed<std::uint64_t>(get(type));
  return value ? std::optional<std::uint64_t>(be64toh(*value)) : std::nullopt;
}

void AttributeWriter::bytes(std::uint16_t type, Bytes value) {
  const nlattr header{static_cast<std::uint16_t>(kHeader + value.size()), type};
  const Bytes raw = octets(header);
  buffer_.insert(buffer_.end(), raw.begin(), raw.end());
  buffer_.insert(buffer_.end(), value.begin(), value.end());
  buffer_.resize(buffer_.size() + aligned(value.size()) - value.size());
}

void AttributeWriter::string(std::uint16_t type, std::string_view value) {
  std::vector<std::uint8_t> text(value.begin(), value.end());
  text.push_back(0);
  bytes(type, text);
}

void AttributeWriter::u8(std::uint16_t type, std::uint8_t value) { bytes(type, {&value, 1}); }

void AttributeWriter::be16(std::uint16_t type, std::uint16_t value) {
  const std::uint16_t network = htobe16(value);
  bytes(type, octets(network));
}

void AttributeWriter::be32(std::uint16_t type, std::uint32_t value) {
  const std::uint32_t network = htobe32(value);
  bytes(type, octets(network));
}

void AttributeWriter::host32(std::uint16_t type, std::uint32_t value) { bytes(type, octets(value)); }

void AttributeWriter::nest(std::uint16_t type, const std::function<void()>& fill) {
  const std::size_t start = buffer_.size();
  bytes(static_cast<std::uint16_t>(type | NLA_F_NESTED), {});
  fill();
  const auto length = static_cast<std::uint16_t>(buffer_.size() - start);
  std::memcpy(buffer_.data() + start, &length, sizeof length);
}

}  // namespace sami::netlink
