// The local control socket of sami-soa: service Agent of operator.proto. Its methods run on gRPC's threads
// and are answered on the loop.
#pragma once

#include <memory>
#include <string>

#include "runtime/loop.h"

namespace grpc {
class Service;
}

namespace sami::soa {

class Agent;

class Control {
 public:
  // The agent must outlive the server that serves service(). When the loop has stopped, calls wait until
  // that server cancels them.
  Control(std::string name, Agent& agent, const Loop& loop);
  ~Control();
  grpc::Service& service();

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace sami::soa
