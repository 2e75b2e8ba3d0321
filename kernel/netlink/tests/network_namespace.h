// A network namespace for one test: the calling thread is in it until the object ends.
#pragma once

#include <string>

namespace sami::netlink::test {

class NetworkNamespace {
 public:
  NetworkNamespace();
  ~NetworkNamespace();
  NetworkNamespace(const NetworkNamespace&) = delete;
  NetworkNamespace& operator=(const NetworkNamespace&) = delete;
  bool usable() const { return reason_.empty(); }
  const std::string& reason() const { return reason_; }  // why it is not usable

 private:
  int home_ = -1;
  bool entered_ = false;
  std::string reason_;
};

}  // namespace sami::netlink::test
