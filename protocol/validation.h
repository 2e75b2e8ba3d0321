// What a peer may say: the limits and rules written beside the fields in interfaces/*.proto. Each function returns an
// empty text, or a sentence: which field, what was found, what was expected. Pure.
#pragma once

#include <string>

#include "interfaces/if_m_t/if_m_t.pb.h"

namespace sami::protocol {

inline constexpr std::size_t maximum_chunk = 256 * 1024;

std::string check_subject(const common::v1::Subject& subject);
std::string check_transfer(const common::v1::Transfer& transfer);
// An announcement (ANNOUNCED, MOVED, PATH_FAILED) with everything it must carry.
std::string check_announcement(const if_m_t::v1::Notify& notify, std::uint32_t maximum_transfers);
// "" is "default".
std::string context_name(const std::string& name);
// Both ends are the same host and context: nothing moves.
bool is_retained(const common::v1::Transfer& transfer);
bool begins_move(if_m_t::v1::Phase phase);

}  // namespace sami::protocol
