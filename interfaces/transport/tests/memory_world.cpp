#include "interfaces/transport/memory_transport.h"
#include "interfaces/transport/tests/world.h"

namespace sami::transport::testing {
namespace {

class MemoryWorld final : public World {
 public:
  void serve(MasterHandlers handlers, Limits limits) override {
    auto served = network_.serve("som1:7500", {domain, "som", "som1"}, std::move(handlers), limits);
    ASSERT_TRUE(served) << served.error().message;
    server_ = std::move(*served);
  }
  void stop() override { server_.reset(); }
  std::unique_ptr<AgentClient> agent(const Identity& identity, const std::string& master_name, Limits limits) override {
    return network_.make_agent_client("som1:7500", identity, master_name, limits);
  }
  std::unique_ptr<TdeClient> tde(const Identity& identity, const std::string& master_name, Limits limits) override {
    return network_.make_tde_client("som1:7500", identity, master_name, limits);
  }

 private:
  MemoryNetwork network_{loop};
  std::unique_ptr<MemoryNetwork::Server> server_;
};

}  // namespace

WorldKind world_kind() {
  return {"memory", [] { return std::make_unique<MemoryWorld>(); }};
}

}  // namespace sami::transport::testing
