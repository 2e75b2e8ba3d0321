// The operator interface over gRPC: service Master of interfaces/operator/operator.proto. The transport has already
// decided who may call what; each call is handed to the loop and answered from there.
#pragma once

#include <memory>

#include "runtime/loop.h"

namespace grpc {
class Service;
}

namespace sami::som {

class Operator;

class OperatorService {
 public:
  // One instance per server. `operations` is used on the loop only and must outlive what the loop still runs.
  OperatorService(Operator& operations, const Loop& loop);
  ~OperatorService();
  OperatorService(const OperatorService&) = delete;
  OperatorService& operator=(const OperatorService&) = delete;

  grpc::Service& service();
  // Ends every running call with UNAVAILABLE, and those that follow. Any thread; before the server is destroyed, so
  // that it need not wait.
  void stop();

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace sami::som
