// Netlink attributes (include/uapi/linux/netlink.h, struct nlattr): a reader that is hard against garbage and a writer.
//
// Pure; no alignment is assumed of the bytes read. Header fields are in host order, as netlink has them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/result.h"

namespace sami::netlink {

using Bytes = std::span<const std::uint8_t>;

// The attributes of one level, by type, up to a type that the caller knows. A type above it is ignored; of a repeated
// one the last counts, as in the kernel.
class AttributeTable {
 public:
  static constexpr std::uint16_t kMaximumType = 31;
  // Corrupt when a length does not fit. `what` names the level in messages.
  static Result<AttributeTable> parse(Bytes bytes, std::string_view what);

  bool has(std::uint16_t type) const { return values_.at(type).has_value(); }
  std::optional<Bytes> get(std::uint16_t type) const { return values_.at(type); }
  // The value of a fixed-size attribute in host order, read as big endian as ctnetlink has them; nullopt when it is
  // not there or shorter than the type.
  std::optional<std::uint8_t> u8(std::uint16_t type) const;
  std::optional<std::uint16_t> be16(std::uint16_t type) const;
  std::optional<std::uint32_t> be32(std::uint16_t type) const;
  std::optional<std::uint64_t> be64(std::uint16_t type) const;

 private:
  std::array<std::optional<Bytes>, kMaximumType + 1> values_{};
};

// Appends attributes to a buffer it does not own.
class AttributeWriter {
 public:
  explicit AttributeWriter(std::vector<std::uint8_t>& buffer) : buffer_(buffer) {}
  void bytes(std::uint16_t type, Bytes value);
  void string(std::uint16_t type, std::string_view value);  // with its terminating zero
  void u8(std::uint16_t type, std::uint8_t value);
  void be16(std::uint16_t type, std::uint16_t value);
  void be32(std::uint16_t type, std::uint32_t value);
  void host32(std::uint16_t type, std::uint32_t value);  // host order (CTA_FILTER_*)
  // What `fill` writes is nested in type.
  void nest(std::uint16_t type, const std::function<void()>& fill);

 private:
  std::vector<std::uint8_t>& buffer_;
};

}  // namespace sami::netlink
