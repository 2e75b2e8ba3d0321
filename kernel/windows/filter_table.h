// The nf_tables table `inet sami` of the network namespace: drops the synthetic segments behind conntrack, puts them
// into their zone before it, and holds the barrier. Raw nfnetlink (include/uapi/linux/netfilter/nf_tables.h).
//
// The table belongs to its netlink socket (NFT_TABLE_F_OWNER, kernel 5.12): nobody else's `flush ruleset` takes it
// away, and the kernel deletes it when the process ends. Private to kernel/windows.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "kernel/netlink/socket.h"
#include "kernel/windows/windows.h"

namespace sami::windows {

// The mark of a synthetic segment: the zone is in the lower half.
inline constexpr std::uint32_t kMark = 0x5a530000, kMarkMask = 0xffff0000;

class FilterTable {
 public:
  // Errors: Unsupported (no nf_tables, not permitted, a table of this name belongs to another process), Failed.
  static Result<std::unique_ptr<FilterTable>> create();

  Result<void> raise(const std::vector<Place>& places, std::chrono::milliseconds timeout);
  Result<void> lower(const std::vector<Place>& places);

 private:
  struct Request {
    std::uint16_t message = 0;  // NFT_MSG_*
    std::uint16_t flags = 0;
    std::vector<std::uint8_t> attributes;
  };
  explicit FilterTable(netlink::Socket socket) : socket_(std::move(socket)) {}
  // One transaction. The errno of the first request that failed, 0: all done.
  Result<int> commit(const std::vector<Request>& requests);
  Result<void> build();
  Request element(std::uint16_t message, const Place& place, std::chrono::milliseconds timeout) const;

  netlink::Socket socket_;
  std::uint32_t sequence_ = 1;
  std::set<Place> up_;  // or run out since
};

}  // namespace sami::windows
