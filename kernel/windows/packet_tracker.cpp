#include "kernel/windows/packet_tracker.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/netfilter.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "kernel/windows/bpf_object.h"
#include "kernel/windows/tracker.h"

namespace sami::windows {

namespace {

// include/uapi/linux/bpf.h of Linux 6.4; older headers have none of it.
constexpr std::uint32_t kProgramType = 32;  // BPF_PROG_TYPE_NETFILTER
constexpr std::uint32_t kAttachType = 45;   // BPF_NETFILTER
constexpr int kLinkCreate = 28;             // BPF_LINK_CREATE
struct LinkCreate {
  std::uint32_t program, target, attach_type, flags;
  std::uint32_t family, hook;
  std::int32_t priority;
  std::uint32_t netfilter_flags;
};
// Behind conntrack (-200 in the output hook), before the barrier (filter_table.cpp).
constexpr std::int32_t kPriority = -199;
constexpr std::uint32_t kBatch = 4096;

// An enumerator that the header of this machine does not name yet.
template <typename Enum>
Enum beyond_header(std::uint32_t value) {
  static_assert(sizeof(Enum) == sizeof value);
  Enum made{};
  std::memcpy(&made, &value, sizeof made);
  return made;
}

netlink::IpAddress address_of(std::uint8_t version, const unsigned int* octets) {
  netlink::IpAddress address;
  address.family = version == 4 ? AF_INET : AF_INET6;
  std::memcpy(address.octets.data(), octets, version == 4 ? 4 : 16);
  return address;
}

netlink::ConntrackTuple tuple_of(std::uint8_t version, const tracked_tuple& from) {
  return {address_of(version, from.source), address_of(version, from.destination), IPPROTO_TCP, ntohs(from.source_port),
          ntohs(from.destination_port)};
}

tracked_place place_of(const Place& from) {
  tracked_place place{};
  std::memcpy(place.address, from.address.octets.data(), sizeof place.address);
  place.zone = from.zone;
  place.version = from.address.family == AF_INET ? 4 : 6;
  return place;
}

class Program {
 public:
  static Result<std::unique_ptr<Program>> load();
  ~Program() { detach(); }
  Result<void> watch(const std::vector<Place>& wanted, bool everything);
  Result<PacketTracker::Taken> take();

 private:
  int map(const char* name) const { return bpf_map__fd(bpf_object__find_map_by_name(object_.get(), name)); }
  Result<void> attach();
  void detach();

  BpfObject object_;
  int program_ = -1, connections_ = -1, places_ = -1, state_ = -1;
  std::vector<int> links_;
  std::set<Place> watched_;
};

Result<std::unique_ptr<Program>> Program::load() {
  auto object = open_bpf_object(tracker_object());
  if (!object) return tl::unexpected(object.error());
  bpf_program* program = bpf_object__find_program_by_name(object->get(), "track");
  if (program == nullptr) return unsupported("the BPF object has no program track", ENOENT);
  bpf_program__set_type(program, beyond_header<bpf_prog_type>(kProgramType));
  bpf_program__set_expected_attach_type(program, beyond_header<bpf_attach_type>(kAttachType));
  constexpr const char* kNeeds = "this kernel does not take the packet tracker (BPF netfilter programs, Linux 6.4)";
  if (auto loaded = load_bpf_object(**object, kNeeds); !loaded) return tl::unexpected(loaded.error());
  auto made = std::make_unique<Program>();
  made->object_ = std::move(*object);
  made->program_ = bpf_program__fd(program);
  made->connections_ = made->map("connections");
  made->places_ = made->map("places");
  made->state_ = made->map("state");
  if (auto attached = made->attach(); !attached) return tl::unexpected(attached.error());
  made->detach();
  return made;
}

Result<void> Program::attach() {
  for (const std::uint32_t family : {NFPROTO_IPV4, NFPROTO_IPV6}) {
    for (const std::uint32_t hook : {NF_INET_FORWARD, NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT}) {
      LinkCreate request{};
      request.program = static_cast<std::uint32_t>(program_);
      request.attach_type = kAttachType;
      request.family = family;
      request.hook = hook;
      request.priority = kPriority;
      const long link = ::syscall(SYS_bpf, kLinkCreate, &request, sizeof request);
      if (link < 0) {
        const int error = errno;
        detach();
        return unsupported("the packet tracker cannot be attached", error);
      }
      links_.push_back(static_cast<int>(link));
    }
  }
  return {};
}

void Program::detach() {
  for (const int link : links_) ::close(link);
  links_.clear();
}

Result<void> Program::watch(const std::vector<Place>& wanted, bool everything) {
  const std::uint32_t zero = 0, one = 1;
  const tracking begun{everything ? 1U : 0U, 0};
  const std::set<Place> next(wanted.begin(), wanted.end());
  const bool idle = next.empty() && !everything;
  if (idle) detach();
  for (const auto& place : next) {
    const tracked_place key = place_of(place);
    if (watched_.contains(place)) continue;
    if (bpf_map_update_elem(places_, &key, &one, BPF_ANY) != 0) return unsupported("places to watch", errno);
  }
  for (const auto& place : watched_) {
    const tracked_place key = place_of(place);
    if (!next.contains(place)) bpf_map_delete_elem(places_, &key);
  }
  watched_ = next;
  tracking now{};
  bpf_map_lookup_elem(state_, &zero, &now);
  now.everything = begun.everything;
  if (links_.empty()) now.overrun = 0;
  if (bpf_map_update_elem(state_, &zero, &now, BPF_ANY) != 0) return unsupported("packet tracker", errno);
  if (idle) {
    if (auto emptied = take(); !emptied) return tl::unexpected(emptied.error());
    return {};
  }
  return links_.empty() ? attach() : Result<void>{};
}

Result<PacketTracker::Taken> Program::take() {
  PacketTracker::Taken taken;
  const std::uint32_t zero = 0;
  tracking now{};
  if (bpf_map_lookup_elem(state_, &zero, &now) != 0) return unsupported("packet tracker", errno);
  taken.overrun = now.overrun != 0;
  if (taken.overrun) {
    now.overrun = 0;
    bpf_map_update_elem(state_, &zero, &now, BPF_ANY);
  }
  std::vector<tracked_connection> keys(kBatch);
  std::vector<tracked_tuple> replies(kBatch);
  std::uint64_t position = 0;
  for (bool first = true;; first = false) {
    std::uint32_t count = kBatch;
    const int error = bpf_map_lookup_and_delete_batch(connections_, first ? nullptr : &position, &position, keys.data(),
                                                      replies.data(), &count, nullptr);
    if (error != 0 && error != -ENOENT) return unsupported("packet tracker: read", -error);
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto& key = keys[i];
      taken.connections.push_back({{tuple_of(key.version, key.original), key.zone}, tuple_of(key.version, replies[i])});
    }
    if (error == -ENOENT) return taken;
  }
}

class Tracker : public PacketTracker {
 public:
  explicit Tracker(Result<std::unique_ptr<Program>> program) : program_(std::move(program)) {}
  Result<void> available() const override {
    if (!program_) return tl::unexpected(program_.error());
    return {};
  }
  Result<void> watch(const std::vector<Place>& places, bool everything) override {
    if (!program_) return tl::unexpected(program_.error());
    return (*program_)->watch(places, everything);
  }
  Result<Taken> take() override {
    if (!program_) return tl::unexpected(program_.error());
    return (*program_)->take();
  }

 private:
  Result<std::unique_ptr<Program>> program_;
};

}  // namespace

std::unique_ptr<PacketTracker> open_packet_tracker() { return std::make_unique<Tracker>(Program::load()); }

}  // namespace sami::windows
