// A BPF object file that was embedded at build time, opened with libbpf. Private to kernel/windows.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "runtime/result.h"

struct bpf_object;

namespace sami::windows {

// The objects; empty when they were built without clang.
std::span<const std::uint8_t> reader_object();
std::span<const std::uint8_t> tracker_object();

struct BpfObjectCloser {
  void operator()(bpf_object* object) const;
};
using BpfObject = std::unique_ptr<bpf_object, BpfObjectCloser>;

// Opened, not loaded. Unsupported: no BTF, built without clang.
Result<BpfObject> open_bpf_object(std::span<const std::uint8_t> bytes);
// Unsupported, with a capability or `needs` as the hint.
Result<void> load_bpf_object(bpf_object& object, const char* needs);

// "TCP windows: what: strerror(error)".
tl::unexpected<Error> unsupported(const std::string& what, int error);

}  // namespace sami::windows
