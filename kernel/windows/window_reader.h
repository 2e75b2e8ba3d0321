// Loads reader.bpf.c and runs it. Private to kernel/windows.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernel/windows/bpf_object.h"
#include "kernel/windows/windows.h"

struct window_slot;

namespace sami::windows {

class WindowReader {
 public:
  // Unsupported with the reason. Blocking; needs the capabilities of kernel_windows.h.
  static Result<std::unique_ptr<WindowReader>> load();
  ~WindowReader();
  Result<std::vector<std::optional<TcpWindow>>> read(const std::vector<netlink::ConntrackKey>& keys);

 private:
  WindowReader() = default;
  Result<bool> run(std::size_t count);  // zones can be asked for

  BpfObject object_;
  int program_ = -1;
  window_slot* slots_ = nullptr;  // the map, mapped
  bool zones_ = false;
};

}  // namespace sami::windows
