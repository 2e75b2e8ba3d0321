// The local control socket of sami-tde: service Topology of operator.proto. Its methods run on gRPC's threads
// and are answered on the loop.
#pragma once

#include <memory>
#include <string>

#include "runtime/loop.h"

namespace grpc {
class Service;
}

namespace sami::tde {

class Entity;

class Control {
 public:
  // The entity must outlive the server that serves service(). When the loop has stopped, calls wait until
  // that server cancels them.
  Control(std::string name, Entity& entity, const Loop& loop);
  ~Control();
  grpc::Service& service();

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace sami::tde
