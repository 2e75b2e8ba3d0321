// Payloads of the requests that are not an entry: keys and filters. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel/netlink/conntrack.h"

namespace sami::netlink {

// Names one entry: CTA_TUPLE_ORIG and CTA_ZONE.
std::vector<std::uint8_t> encode_key(const ConntrackKey& key);
// CTA_FILTER with partial tuples, and CTA_ZONE; empty when the filter has nothing but a family.
std::vector<std::uint8_t> encode_filter(const ConntrackFilter& filter);
// A filter that a kernel which reads CTA_FILTER refuses, and one which does not ignores.
std::vector<std::uint8_t> encode_impossible_filter();

}  // namespace sami::netlink
