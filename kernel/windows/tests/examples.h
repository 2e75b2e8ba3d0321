// Windows as connections have them, for tests.
#pragma once

#include <fmt/format.h>
#include <linux/netfilter/nf_conntrack_tcp.h>

#include <string>
#include <utility>
#include <vector>

#include "kernel/windows/windows.h"

namespace sami::windows::test {

inline constexpr std::uint8_t kSet = 0x23;  // MAXACK_SET, SACK_PERM, WINDOW_SCALE

inline std::string text(const WindowDirection& d) {
  return fmt::format("end {} maxend {} maxwin {} maxack {} scale {} flags {:#x}", d.end, d.maximum_end,
                     d.maximum_window, d.maximum_acknowledgement, d.scale, d.flags);
}
inline std::string text(const TcpWindow& w) { return text(w.original) + " | " + text(w.reply); }

// Nothing under way; scales 7 and 9 as netlink::test::tcp has them.
inline TcpWindow idle() {
  return {{1'000, 2'000 + 63'488 - 1'000, 64'256, 5'000, 7, kSet}, {5'000, 5'000 + 64'256, 63'488, 1'000, 9, kSet}};
}

inline std::vector<std::pair<std::string, TcpWindow>> examples() {
  const TcpWindow plain = idle();
  // The original end has 1 MB under way into a window of 4 MB; it is at the end of sequence space.
  TcpWindow upload = plain;
  upload.original.maximum_acknowledgement = 5'000;
  upload.reply.maximum_window = 4U << 20;
  upload.reply.maximum_acknowledgement = 0xfffff000U;
  upload.original.end = 0xfffff000U + (1U << 20);
  upload.original.maximum_end = 0xfffff000U + (4U << 20);
  // The other way round.
  TcpWindow download{plain.reply, plain.original};
  std::swap(download.original.scale, download.reply.scale);
  download.original.maximum_window = 3U << 20;
  download.original.maximum_acknowledgement = 9'000;
  download.reply.end = 9'000 + (2U << 20);
  download.reply.maximum_end = 9'000 + (3U << 20);
  download.reply.maximum_acknowledgement = download.original.end;
  download.original.maximum_end = download.original.end + download.reply.maximum_window;
  // A receiver whose buffer is full.
  TcpWindow shrunken = upload;
  shrunken.original.maximum_end = shrunken.original.end;
  // Windows that no scale divides, as a SYN leaves them.
  TcpWindow odd = plain;
  odd.original.maximum_window = 64'240;
  odd.reply.maximum_end = odd.original.maximum_acknowledgement + 64'256;
  return {{"idle", plain}, {"upload", upload}, {"download", download}, {"shrunken window", shrunken}, {"odd", odd}};
}

}  // namespace sami::windows::test
