// Chunks, as they arrive at a destination, into the agent's machine over the driver: garbage never leaves the subject's
// scope, and a rollback leaves nothing.
#include <google/protobuf/stubs/logging.h>

#include "protocol/soa.h"
#include "tests/fuzz/inputs.h"

using namespace sami;

namespace {

namespace if_m_a = ::sami::if_m_a::v1;

class Destination {
 public:
  Destination()
      : conntrack_(netlink::make_memory_conntrack()),
        driver_(state::make_connection_tracking_driver(*conntrack_, fuzz::config())),
        soa_(configuration(), {}) {
    step(protocol::soa_event::Connected{});
    if_m_a::MasterMessage authorized, registered;
    authorized.mutable_authorized()->set_protocol_version(1);
    registered.mutable_registered()->set_host("fw2");
    take(authorized);
    take(registered);
    if_m_a::MasterMessage ready;
    auto& request = *ready.mutable_get_ready();
    *request.mutable_transfer() = reference();
    *request.mutable_subject() = fuzz::subject();
    request.mutable_plan()->set_source_host("fw1");
    request.mutable_plan()->set_destination_host("fw2");
    request.mutable_plan()->set_disposition(state::common::DISPOSITION_MOVE);
    request.add_classes()->set_state_class("connection_tracking");
    request.set_conflict_rule(state::common::CONFLICT_RULE_PLANNED);
    request.set_lease_ms(60'000);
    take(ready);
  }

  void chunk(const std::string& bytes) {
    if_m_a::MasterMessage message;
    *message.mutable_download_state()->mutable_transfer() = reference();
    message.mutable_download_state()->set_chunk(bytes);
    take(message);
  }

  void roll_back() {
    if_m_a::MasterMessage message;
    *message.mutable_rollback()->mutable_transfer() = reference();
    message.mutable_rollback()->set_role(if_m_a::TRANSFER_ROLE_DESTINATION);
    take(message);
  }

  std::uint64_t entries() { return conntrack_->table().count().value(); }

 private:
  protocol::SoaConfig configuration() const {
    protocol::SoaConfig config;
    config.host = "fw2";
    config.identity = "spiffe://fuzz/sami/soa/fw2";
    config.drivers = {driver_->profile()};
    return config;
  }
  static state::common::TransferReference reference() {
    state::common::TransferReference made;
    made.set_migration_id("m1");
    made.set_epoch(1);
    made.set_subject_id("vm1");
    return made;
  }
  void take(const if_m_a::MasterMessage& message) { step(protocol::soa_event::FromMaster{message}); }
  void step(protocol::SoaEvent event) {
    now_ = now_ + std::chrono::milliseconds(1);
    const auto next = soa_.step(now_, std::move(event));
    for (const auto& call : next.calls) step(protocol::soa_event::FromDriver{protocol::perform(call, *driver_)});
  }

  Instant now_;
  std::unique_ptr<netlink::MemoryConntrack> conntrack_;
  std::unique_ptr<state::Driver> driver_;
  protocol::Soa soa_;
};

// A chunk of records that may well be the subject's.
std::string chunk_of(fuzz::Input& input, std::uint64_t sequence) {
  if_m_a::StateChunk chunk;
  const std::uint8_t kind = input.octet();
  chunk.set_generation(1 + kind % 2);
  chunk.set_sequence(kind & 2 ? sequence : input.octet());
  chunk.set_round(1);
  chunk.set_state_class(kind & 4 ? "connection_tracking" : input.text());
  for (int records = input.octet() % 4; records > 0; --records) {
    const auto connection = fuzz::connection(input);
    auto& record = *chunk.add_records();
    record.set_key(kind & 8 ? input.text()
                            : state::connection_tracking::encode_key({connection.vn_name, connection.entry.original}));
    record.set_body(kind & 16 ? input.text() : encode_body(connection));
    record.set_gone(kind & 32);
  }
  if (kind & 64) chunk.mutable_round_end()->set_kind(static_cast<if_m_a::RoundKind>(input.octet() % 5));
  return chunk.SerializeAsString();
}

// The road is open: a good record arrives.
void check_arrival() {
  state::connection_tracking::Connection connection;
  connection.vn_name = "blue";
  connection.entry.original = {fuzz::address(0), fuzz::address(2), IPPROTO_UDP, 1, 2};
  connection.entry.reply = netlink::mirror(connection.entry.original);
  if_m_a::StateChunk chunk;
  chunk.set_generation(1);
  chunk.set_sequence(1);
  chunk.set_round(1);
  chunk.set_state_class("connection_tracking");
  auto& record = *chunk.add_records();
  record.set_key(state::connection_tracking::encode_key({connection.vn_name, connection.entry.original}));
  record.set_body(encode_body(connection));
  Destination destination;
  destination.chunk(chunk.SerializeAsString());
  if (destination.entries() != 1) fuzz::broken("a good record does not arrive");
  destination.roll_back();
  if (destination.entries() != 0) fuzz::broken("the rollback leaves a good record");
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);
  check_arrival();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  Destination destination;
  const std::uint8_t mode = input.octet();
  for (std::uint64_t sequence = 1; sequence < 32 && !input.empty(); ++sequence) {
    destination.chunk(mode & 1 ? input.text() : chunk_of(input, sequence));
  }
  destination.roll_back();
  if (destination.entries() != 0) fuzz::broken("the rollback leaves something");
  return 0;
}
