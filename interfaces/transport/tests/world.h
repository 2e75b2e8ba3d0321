// Where a session test runs: in memory, or over gRPC with certificates made for it. One loop, one master "som1".
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "interfaces/transport/transport.h"

namespace sami::transport::testing {

constexpr auto patience = std::chrono::seconds(20);
constexpr const char* domain = "dc.example";

class World {
 public:
  virtual ~World() = default;
  // Serves as spiffe://dc.example/sami/som/som1; again after stop() at the same place.
  virtual void serve(MasterHandlers handlers, Limits limits) = 0;
  virtual void stop() = 0;
  virtual std::unique_ptr<AgentClient> agent(const Identity& identity, const std::string& master_name,
                                             Limits limits) = 0;
  virtual std::unique_ptr<TdeClient> tde(const Identity& identity, const std::string& master_name, Limits limits) = 0;
  Loop loop;
};
struct WorldKind {
  std::string name;
  std::function<std::unique_ptr<World>()> make;
};
// Of this test binary.
WorldKind world_kind();

inline Identity soa(const std::string& name) { return {domain, "soa", name}; }

// What the master sees.
struct Master {
  std::vector<std::shared_ptr<AgentSession>> agents;
  std::vector<std::shared_ptr<TdeSession>> tdes;
  std::vector<if_m_a::v1::AgentMessage> messages;
  std::vector<if_m_t::v1::TdeMessage> tde_messages;
  std::vector<std::string> closed;
  std::vector<std::string> refused;   // "peer: reason"

  MasterHandlers handlers() {
    MasterHandlers result;
    result.on_agent_open = [this](auto session) { agents.push_back(session); };
    result.on_agent_message = [this](const auto&, auto message) { messages.push_back(std::move(message)); };
    result.on_agent_closed = [this](const auto&, auto reason) { closed.push_back(reason); };
    result.on_tde_open = [this](auto session) { tdes.push_back(session); };
    result.on_tde_message = [this](const auto&, auto message) { tde_messages.push_back(std::move(message)); };
    result.on_tde_closed = [this](const auto&, auto reason) { closed.push_back(reason); };
    result.on_refused = [this](const std::string& peer, const std::string& reason) {
      refused.push_back(peer + ": " + reason);
    };
    return result;
  }
};

// What a client sees.
template <typename Incoming>
struct Dialler {
  int connected = 0;
  std::vector<Incoming> messages;
  std::vector<std::string> disconnected;

  template <typename ClientType>
  typename ClientType::Handlers handlers() {
    typename ClientType::Handlers result;
    result.on_connected = [this] { ++connected; };
    result.on_message = [this](Incoming message) { messages.push_back(std::move(message)); };
    result.on_disconnected = [this](const std::string& reason) { disconnected.push_back(reason); };
    return result;
  }
};
using AgentDialler = Dialler<if_m_a::v1::MasterMessage>;
using TdeDialler = Dialler<if_m_t::v1::MasterMessage>;

inline if_m_a::v1::AgentMessage upload(std::uint32_t number, std::size_t size) {
  if_m_a::v1::AgentMessage message;
  message.mutable_upload_state()->mutable_transfer()->set_transfer(number);
  message.mutable_upload_state()->set_chunk(std::string(size, 'u'));
  return message;
}
inline if_m_a::v1::MasterMessage download(std::uint32_t number, std::size_t size) {
  if_m_a::v1::MasterMessage message;
  message.mutable_download_state()->mutable_transfer()->set_transfer(number);
  message.mutable_download_state()->set_chunk(std::string(size, 'd'));
  return message;
}

}  // namespace sami::transport::testing
