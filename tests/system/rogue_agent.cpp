// A State Host that has been taken over: it has a valid certificate, and misuses it. Says one line on standard output
// for each thing that happens to it ("connected", "registered", "uploading", "refused REASON", "disconnected REASON").
//
//   sami-rogue-agent MASTER PKI-FOLDER CERTIFICATE-NAME CLAIMED-HOST BEHAVIOUR
//
// BEHAVIOUR: foreign (another VM's connection), garbage, truncated, oversized (chunks), version (an unknown protocol),
// silent (connects and says nothing).
// Ends with its standard input, or after a minute.
#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <netinet/in.h>
#include <unistd.h>

#include <iostream>
#include <thread>

#include "interfaces/transport/transport.h"
#include "runtime/loop.h"
#include "state/connection_tracking/record.h"

namespace {

using namespace sami;
using if_m_a::v1::AgentMessage;
using if_m_a::v1::MasterMessage;

void say(const std::string& line) { std::cout << line << std::endl; }

netlink::IpAddress address(const char* text) {
  netlink::IpAddress out;
  out.family = AF_INET;
  inet_pton(AF_INET, text, out.octets.data());
  return out;
}

// vm2's connection to vm3: a hole in the firewall if it were installed for vm1.
std::string foreign_chunk() {
  state::connection_tracking::Connection connection;
  connection.vn_name = "blue";
  connection.entry.original = {address("10.1.2.20"), address("10.9.3.30"), IPPROTO_UDP, 4444, 53};
  connection.entry.reply = mirror(connection.entry.original);
  connection.entry.status = IPS_SEEN_REPLY | IPS_ASSURED;
  connection.entry.timeout = 600;
  if_m_a::v1::StateChunk chunk;
  chunk.set_generation(1);
  chunk.set_sequence(1);
  chunk.set_round(1);
  chunk.set_state_class("connection_tracking");
  auto* record = chunk.add_records();
  record->set_key(state::connection_tracking::encode_key({connection.vn_name, connection.entry.original}));
  record->set_body(encode_body(connection));
  auto* end = chunk.mutable_round_end();
  end->set_kind(if_m_a::v1::ROUND_KIND_SNAPSHOT);
  end->set_converged(true);
  auto* digest = end->add_digests();
  digest->set_state_class("connection_tracking");
  digest->set_records(1);
  digest->set_sum(digest_of(connection));
  return chunk.SerializeAsString();
}

std::string chunk_of(const std::string& behaviour) {
  const std::string good = foreign_chunk();
  if (behaviour == "garbage") return std::string(5000, '\xff');
  if (behaviour == "truncated") return good.substr(0, good.size() - 7);
  if (behaviour == "oversized") return good + std::string(300 * 1024, 'x');
  return good;
}

class Rogue {
 public:
  Rogue(transport::AgentClient& client, std::string identity, std::string host, std::string behaviour)
      : client_(client), identity_(std::move(identity)), host_(std::move(host)), behaviour_(std::move(behaviour)) {}

  void start() {
    client_.start({[this] { connected(); }, [this](MasterMessage message) { heard(message); },
                   [](const std::string& reason) { say("disconnected " + reason); }});
  }

 private:
  void connected() {
    say("connected");
    if (behaviour_ == "silent") return;
    AgentMessage message;
    auto* authorize = message.mutable_authorize();
    authorize->set_identity(identity_);
    authorize->add_protocol_versions(behaviour_ == "version" ? 99 : 1);
    client_.send(message);
  }

  void heard(const MasterMessage& message) {
    if (message.has_refused()) say("refused " + message.refused().reason());
    if (message.has_authorized()) register_host();
    if (message.has_registered()) say("registered");
    if (message.has_upload_request()) upload(message.upload_request().transfer());
    if (message.has_rollback()) roll_back(message.rollback().transfer());
  }

  void register_host() {
    AgentMessage message;
    auto* profile = message.mutable_register_();
    profile->set_host(host_);
    auto* state_class = profile->add_classes();
    state_class->set_state_class("connection_tracking");
    for (const char* function : {"upload", "download", "follow"}) state_class->add_functions(function);
    auto* context = profile->add_contexts();
    context->set_name("default");
    (*context->mutable_vn_zone())["blue"] = 0;
    profile->set_max_concurrent_transfers(16);
    client_.send(message);
  }

  void upload(const common::v1::TransferReference& transfer) {
    AgentMessage message;
    *message.mutable_upload_state()->mutable_transfer() = transfer;
    message.mutable_upload_state()->set_chunk(chunk_of(behaviour_));
    client_.send(message);
    say("uploading");
  }

  void roll_back(const common::v1::TransferReference& transfer) {
    AgentMessage message;
    *message.mutable_rolled_back()->mutable_transfer() = transfer;
    message.mutable_rolled_back()->set_role(if_m_a::v1::TRANSFER_ROLE_SOURCE);
    client_.send(message);
  }

  transport::AgentClient& client_;
  std::string identity_, host_, behaviour_;
};

}  // namespace

int main(int count, char** arguments) {
  if (count != 6) {
    std::cerr << "expected: MASTER PKI-FOLDER CERTIFICATE-NAME CLAIMED-HOST BEHAVIOUR\n";
    return 2;
  }
  const std::string folder = arguments[2], name = arguments[3];
  Loop loop;
  transport::ClientConfig config;
  config.target = arguments[1];
  config.credentials = {folder + "/ca.pem", folder + "/" + name + ".pem", folder + "/" + name + ".key"};
  config.master_name = "som1";
  auto client = transport::make_agent_client(config, loop);
  if (!client) {
    std::cerr << client.error().message << "\n";
    return 1;
  }
  Rogue rogue(**client, "spiffe://lab.example/sami/soa/" + name, arguments[4], arguments[5]);
  rogue.start();
  std::thread input([&loop] {
    char octet = 0;
    while (::read(STDIN_FILENO, &octet, 1) > 0) {
    }
    loop.stop();
  });
  loop.call_after(std::chrono::minutes(1), [&loop] { loop.stop(); });
  loop.run();
  say("ended");
  ::_exit(0);  // the reader may still wait for input
}
