#include <fmt/format.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "kernel/netlink/conntrack_encode.h"
#include "kernel/netlink/kernel_conntrack.h"

namespace sami::netlink {

namespace {

// Answers to one batch must fit the socket's receive buffer; a datagram must fit its send buffer.
constexpr std::size_t kBatchRequests = 256;
constexpr std::size_t kBatchBytes = 96 * 1024;

constexpr std::uint16_t message_type(int message) {
  return static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | message);
}

Result<ConntrackEntry> decode_message(const Message& message) {
  const auto netfilter = parse_netfilter(message);
  if (!netfilter) return tl::unexpected(netfilter.error());
  return decode_entry(netfilter->family, netfilter->attributes);
}

struct Wire {
  std::uint16_t message = 0;
  std::uint16_t flags = 0;
};

Wire wire(ConntrackOperation operation) {
  switch (operation) {
    case ConntrackOperation::Create: return {IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK};
    case ConntrackOperation::Update:
    case ConntrackOperation::SetTimeout: return {IPCTNL_MSG_CT_NEW, NLM_F_ACK};
    case ConntrackOperation::Delete: break;
  }
  return {IPCTNL_MSG_CT_DELETE, NLM_F_ACK};
}

}  // namespace

void KernelTable::append(Batch& batch, std::uint16_t message, std::uint16_t flags, std::uint8_t family,
                         Bytes attributes) {
  if (batch.size == 0) batch.first_sequence = sequence_;
  append_request(batch.datagram, message_type(message), flags, sequence_++, family, attributes);
  ++batch.size;
}

Result<void> KernelTable::exchange(const Batch& batch, const std::function<void(std::size_t, const Message&)>& answer,
                                   const std::function<void(std::size_t, const Acknowledgement&)>& acknowledged) {
  if (auto sent = socket_.send(batch.datagram); !sent) return sent;
  std::size_t left = batch.size;
  while (left > 0) {
    const auto datagram = socket_.receive(true);
    if (!datagram) return tl::unexpected(datagram.error());
    Result<void> problem;
    auto split = split_messages(*datagram, [&](const Message& message) {
      const std::uint32_t index = message.sequence - batch.first_sequence;
      if (index >= batch.size) return;  // of a call that was given up
      if (message.type != NLMSG_ERROR) {
        if (!batch.acknowledged) --left;
        return answer(index, message);
      }
      const auto parsed = parse_acknowledgement(message);
      if (!parsed) {
        problem = tl::unexpected(parsed.error());
        return;
      }
      acknowledged(index, *parsed);
      --left;
    });
    if (!split) return split;
    if (!problem) return problem;
  }
  return {};
}

Result<std::vector<int>> KernelTable::apply(const std::vector<ConntrackRequest>& requests) {
  std::vector<int> errors(requests.size(), 0);
  std::size_t next = 0;
  while (next < requests.size()) {
    Batch batch;
    std::vector<std::size_t> positions;
    for (; next < requests.size() && batch.size < kBatchRequests && batch.datagram.size() < kBatchBytes; ++next) {
      const auto& [operation, entry] = requests[next];
      if (operation == ConntrackOperation::Delete && entry.id == 0) {
        errors[next] = EINVAL;
        continue;
      }
      const auto [message, flags] = wire(operation);
      append(batch, message, flags, entry.original.source.family, encode_entry(entry, operation));
      positions.push_back(next);
    }
    if (batch.size == 0) continue;
    auto done = exchange(
        batch, [](std::size_t, const Message&) {},
        [&](std::size_t index, const Acknowledgement& result) { errors[positions[index]] = result.error; });
    if (!done) return tl::unexpected(done.error());
  }
  return errors;
}

Result<std::vector<std::optional<ConntrackEntry>>> KernelTable::get(const std::vector<ConntrackKey>& keys) {
  std::vector<std::optional<ConntrackEntry>> entries(keys.size());
  std::size_t next = 0;
  Result<void> problem;
  while (next < keys.size()) {
    Batch batch;
    batch.acknowledged = false;  // half as many datagrams
    const std::size_t first = next;
    for (; next < keys.size() && batch.size < kBatchRequests; ++next) {
      append(batch, IPCTNL_MSG_CT_GET, 0, keys[next].original.source.family, encode_key(keys[next]));
    }
    const auto answered = [&](std::size_t index, const Message& message) {
      auto entry = decode_message(message);
      if (!entry) {
        if (entry.error().kind != ErrorKind::Unsupported) problem = tl::unexpected(entry.error());
        return;
      }
      // The kernel finds an entry by either of its tuples.
      if (key_of(*entry) == keys[first + index]) entries[first + index] = std::move(*entry);
    };
    const auto acknowledged = [&](std::size_t, const Acknowledgement& result) {
      if (result.error == 0 || result.error == ENOENT) return;
      problem = failure(ErrorKind::Failed,
                        fmt::format("conntrack entry cannot be read: {} {}", std::strerror(result.error), result.text),
                        result.error);
    };
    if (auto done = exchange(batch, answered, acknowledged); !done) return tl::unexpected(done.error());
    if (!problem) return tl::unexpected(problem.error());
  }
  return entries;
}

Result<Acknowledgement> KernelTable::run_dump(std::uint8_t family, const std::vector<std::uint8_t>& filter,
                                              const std::function<void(const Message&)>& sink) {
  Batch batch;
  append(batch, IPCTNL_MSG_CT_GET, NLM_F_DUMP, family, filter);
  if (auto sent = socket_.send(batch.datagram); !sent) return tl::unexpected(sent.error());
  std::optional<Result<Acknowledgement>> end;
  while (!end) {
    const auto datagram = socket_.receive(true);
    if (!datagram) return tl::unexpected(datagram.error());
    auto split = split_messages(*datagram, [&](const Message& message) {
      if (message.sequence != batch.first_sequence) return;
      if (message.type == NLMSG_DONE || message.type == NLMSG_ERROR) {
        end = parse_acknowledgement(message);
      } else {
        sink(message);
      }
    });
    if (!split) return tl::unexpected(split.error());
  }
  return *end;
}

Result<void> KernelTable::dump(const ConntrackFilter& filter, const std::function<void(const ConntrackEntry&)>& sink) {
  Result<void> problem;
  const auto end = run_dump(filter.family, encode_filter(filter), [&](const Message& message) {
    const auto entry = decode_message(message);
    if (entry) {
      if (matches(filter, *entry)) sink(*entry);
    } else if (entry.error().kind != ErrorKind::Unsupported) {
      problem = tl::unexpected(entry.error());
    }
  });
  if (!end) return tl::unexpected(end.error());
  if (end->error != 0) {
    return failure(ErrorKind::Failed, fmt::format("conntrack dump: {} {}", std::strerror(end->error), end->text),
                   end->error);
  }
  return problem;
}

Result<void> KernelTable::check_filter() {
  const auto end = run_dump(AF_INET, encode_impossible_filter(), [](const Message&) {});
  if (!end) return tl::unexpected(end.error());
  if (end->error == EPERM) {
    return failure(ErrorKind::Unsupported, "ctnetlink is not permitted: CAP_NET_ADMIN is needed", EPERM);
  }
  if (end->error != 0) return {};
  return failure(ErrorKind::Unsupported, "this kernel ignores CTA_FILTER; Linux 5.8 or newer is needed");
}

Result<std::uint64_t> KernelTable::count() {
  Batch batch;
  append(batch, IPCTNL_MSG_CT_GET_STATS, NLM_F_ACK, AF_UNSPEC, {});
  std::optional<std::uint32_t> entries;
  int error = 0;
  const auto answered = [&](std::size_t, const Message& message) {
    const auto netfilter = parse_netfilter(message);
    if (!netfilter) return;
    if (const auto table = AttributeTable::parse(netfilter->attributes, "conntrack statistics")) {
      entries = table->be32(CTA_STATS_GLOBAL_ENTRIES);
    }
  };
  auto done = exchange(batch, answered, [&](std::size_t, const Acknowledgement& result) { error = result.error; });
  if (!done) return tl::unexpected(done.error());
  if (!entries) return failure(ErrorKind::Failed, fmt::format("conntrack statistics: {}", std::strerror(error)), error);
  return *entries;
}

}  // namespace sami::netlink
