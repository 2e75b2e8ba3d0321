// The parts of the kernel twin. Made by open_kernel_conntrack() (conntrack.h).
#pragma once

#include <memory>
#include <vector>

#include "kernel/netlink/conntrack.h"
#include "kernel/netlink/message.h"
#include "kernel/netlink/socket.h"

namespace sami::netlink {

// Requests are sent many to a datagram, and their answers matched by sequence number.
class KernelTable : public ConntrackTable {
 public:
  explicit KernelTable(Socket socket) : socket_(std::move(socket)) {}

  Result<void> dump(const ConntrackFilter& filter, const std::function<void(const ConntrackEntry&)>& sink) override;
  Result<std::vector<std::optional<ConntrackEntry>>> get(const std::vector<ConntrackKey>& keys) override;
  Result<std::vector<int>> apply(const std::vector<ConntrackRequest>& requests) override;
  Result<std::uint64_t> count() override;

  // Unsupported when the kernel ignores CTA_FILTER.
  Result<void> check_filter();

 private:
  struct Batch {
    std::vector<std::uint8_t> datagram;
    std::uint32_t first_sequence = 0;
    std::size_t size = 0;
    bool acknowledged = true;  // otherwise each request has exactly one answer, a message or an error
  };
  // Sends the batch and calls sink for each answer with the index of its request until all are done.
  Result<void> exchange(const Batch& batch, const std::function<void(std::size_t, const Message&)>& answer,
                        const std::function<void(std::size_t, const Acknowledgement&)>& acknowledged);
  // Starts a dump and calls entry for each message until its end. The errno of the dump.
  Result<Acknowledgement> run_dump(std::uint8_t family, const std::vector<std::uint8_t>& filter,
                                   const std::function<void(const Message&)>& sink);
  void append(Batch& batch, std::uint16_t message, std::uint16_t flags, std::uint8_t family, Bytes attributes);

  Socket socket_;
  std::uint32_t sequence_ = 1;
};

class KernelEvents : public ConntrackEvents {
 public:
  KernelEvents(Socket socket, std::size_t buffer_bytes) : socket_(std::move(socket)), buffer_bytes_(buffer_bytes) {}
  static Result<std::unique_ptr<ConntrackEvents>> subscribe(int buffer_bytes);
  Result<std::vector<ConntrackEvent>> drain() override;

 private:
  Socket socket_;
  std::size_t buffer_bytes_;
};

}  // namespace sami::netlink
