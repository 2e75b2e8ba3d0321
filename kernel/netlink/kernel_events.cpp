#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>

#include <cerrno>

#include "kernel/netlink/kernel_conntrack.h"

namespace sami::netlink {

namespace {

std::optional<EventKind> kind_of(const Message& message) {
  if (message.type >> 8 != NFNL_SUBSYS_CTNETLINK) return std::nullopt;
  switch (message.type & 0xff) {
    case IPCTNL_MSG_CT_NEW: return message.flags & NLM_F_CREATE ? EventKind::New : EventKind::Update;
    case IPCTNL_MSG_CT_DELETE: return EventKind::Destroy;
    default: return std::nullopt;
  }
}

}  // namespace

Result<std::unique_ptr<ConntrackEvents>> KernelEvents::subscribe(int buffer_bytes) {
  auto socket =
      Socket::open(buffer_bytes, {NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_UPDATE, NFNLGRP_CONNTRACK_DESTROY});
  if (!socket) return tl::unexpected(socket.error());
  return std::make_unique<KernelEvents>(std::move(*socket), static_cast<std::size_t>(buffer_bytes));
}

Result<std::vector<ConntrackEvent>> KernelEvents::drain() {
  std::vector<ConntrackEvent> events;
  Result<void> problem;
  // What was queued at the call is at most the receive buffer; under a storm of new events it ends there.
  for (std::size_t taken = 0; taken <= 2 * buffer_bytes_;) {
    const auto datagram = socket_.receive(false);
    if (!datagram) {
      problem = tl::unexpected(datagram.error());
      if (datagram.error().kind != ErrorKind::Retry) break;
      continue;
    }
    if (datagram->empty()) break;
    taken += datagram->size();
    auto split = split_messages(*datagram, [&](const Message& message) {
      const auto kind = kind_of(message);
      if (!kind) return;
      const auto netfilter = parse_netfilter(message);
      if (!netfilter) return;
      const auto entry = decode_entry(netfilter->family, netfilter->attributes);
      if (entry) {
        events.push_back({*kind, key_of(*entry), entry->reply});
      } else if (entry.error().kind != ErrorKind::Unsupported) {
        problem = failure(ErrorKind::Retry, "an event is unreadable: " + entry.error().message, ENOBUFS);
      }
    });
    if (!split) problem = split;
  }
  if (!problem) return tl::unexpected(problem.error());
  return events;
}

}  // namespace sami::netlink
