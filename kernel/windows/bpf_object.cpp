#include "kernel/windows/bpf_object.h"

#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstring>

namespace sami::windows {

namespace {

constexpr const char* kKernelTypes = "/sys/kernel/btf/vmlinux";

// libbpf's own words are about its attempts; ours name what is missing.
int silent(libbpf_print_level, const char*, va_list) { return 0; }

}  // namespace

void BpfObjectCloser::operator()(bpf_object* object) const { bpf_object__close(object); }

tl::unexpected<Error> unsupported(const std::string& what, int error) {
  return failure(ErrorKind::Unsupported, fmt::format("TCP windows: {}: {}", what, std::strerror(error)), error);
}

Result<BpfObject> open_bpf_object(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return unsupported("built without clang, which compiles the BPF programs", ENOTSUP);
  if (::access(kKernelTypes, R_OK) != 0) return unsupported(fmt::format("no BTF: {}", kKernelTypes), errno);
  libbpf_set_print(silent);
  BpfObject object(bpf_object__open_mem(bytes.data(), bytes.size(), nullptr));
  if (!object) return unsupported("the BPF object cannot be opened", errno);
  return object;
}

Result<void> load_bpf_object(bpf_object& object, const char* needs) {
  const int error = bpf_object__load(&object);
  if (error == 0) return {};
  const char* hint = error == -EPERM ? "CAP_BPF, CAP_PERFMON or CAP_SYS_ADMIN is missing" : needs;
  return unsupported(hint, -error);
}

}  // namespace sami::windows
