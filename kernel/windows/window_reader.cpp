#include "kernel/windows/window_reader.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "kernel/windows/reader.h"

namespace sami::windows {

namespace {

constexpr const char* kNeeds = "this kernel does not take the BPF reader (kfunc bpf_skb_ct_lookup, Linux 5.18)";
constexpr std::size_t kMapBytes = WINDOW_SLOTS * sizeof(window_slot);
void fill(window_slot& slot, const netlink::ConntrackKey& key) {
  std::memset(&slot, 0, sizeof slot);
  const auto& tuple = key.original;
  slot.version = tuple.source.family == AF_INET ? 4 : 6;
  std::memcpy(slot.source, tuple.source.octets.data(), sizeof slot.source);
  std::memcpy(slot.destination, tuple.destination.octets.data(), sizeof slot.destination);
  slot.source_port = htons(tuple.source_port);
  slot.destination_port = htons(tuple.destination_port);
  slot.zone = key.zone;
}

WindowDirection direction_of(const window_direction& from) {
  return {from.end, from.maximum_end, from.maximum_window, from.maximum_acknowledgement, from.scale, from.flags};
}

}  // namespace

WindowReader::~WindowReader() {
  if (slots_ != nullptr) ::munmap(slots_, kMapBytes);
}

Result<std::unique_ptr<WindowReader>> WindowReader::load() {
  auto object = open_bpf_object(reader_object());
  if (!object) return tl::unexpected(object.error());
  if (auto loaded = load_bpf_object(**object, kNeeds); !loaded) return tl::unexpected(loaded.error());
  std::unique_ptr<WindowReader> reader(new WindowReader());
  reader->object_ = std::move(*object);
  reader->program_ = bpf_program__fd(bpf_object__find_program_by_name(reader->object_.get(), "read_windows"));
  const int map = bpf_map__fd(bpf_object__find_map_by_name(reader->object_.get(), "slots"));
  if (reader->program_ < 0 || map < 0) return unsupported("the BPF object has no program read_windows", ENOENT);
  void* mapped = ::mmap(nullptr, kMapBytes, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
  if (mapped == MAP_FAILED) return unsupported("mmap of the BPF map", errno);
  reader->slots_ = static_cast<window_slot*>(mapped);
  const auto zones = reader->run(0);
  if (!zones) return tl::unexpected(zones.error());
  reader->zones_ = *zones;
  return reader;
}

Result<bool> WindowReader::run(std::size_t count) {
  std::array<unsigned char, 64> packet{};
  __sk_buff context{};
  context.mark = static_cast<__u32>(count);
  bpf_test_run_opts options{};
  options.sz = sizeof options;
  options.data_in = packet.data();
  options.data_size_in = packet.size();
  options.ctx_in = &context;
  options.ctx_size_in = sizeof context;
  options.repeat = 1;
  if (const int error = bpf_prog_test_run_opts(program_, &options); error != 0) {
    return unsupported("BPF_PROG_TEST_RUN", -error);
  }
  return options.retval != 0;
}

Result<std::vector<std::optional<TcpWindow>>> WindowReader::read(const std::vector<netlink::ConntrackKey>& keys) {
  std::vector<std::optional<TcpWindow>> windows(keys.size());
  for (std::size_t first = 0; first < keys.size(); first += WINDOW_SLOTS) {
    const std::size_t count = std::min<std::size_t>(WINDOW_SLOTS, keys.size() - first);
    for (std::size_t i = 0; i < count; ++i) fill(slots_[i], keys[first + i]);
    if (auto ran = run(count); !ran) return tl::unexpected(ran.error());
    for (std::size_t i = 0; i < count; ++i) {
      const auto& key = keys[first + i];
      const bool asked = key.original.protocol == IPPROTO_TCP && (zones_ || key.zone == 0);
      if (!asked || slots_[i].answer != WINDOW_FOUND) continue;
      windows[first + i] = TcpWindow{direction_of(slots_[i].direction[0]), direction_of(slots_[i].direction[1])};
    }
  }
  return windows;
}

}  // namespace sami::windows
