// The BPF object of reader.bpf.c, embedded at build time; empty when it was built without clang.
#pragma once

#include <cstdint>
#include <span>

namespace sami::windows {

std::span<const std::uint8_t> reader_object();

}  // namespace sami::windows
