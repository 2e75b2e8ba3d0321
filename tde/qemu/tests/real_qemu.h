// A qemu-system-x86_64 without a guest: its firmware runs, which is all that a migration needs.
#pragma once

#include <sys/types.h>

#include <string>

namespace sami::tde::qmp {

bool qemu_installed();

class RealQemu {
 public:
  RealQemu(const std::string& path, bool incoming);
  ~RealQemu();  // killed
  RealQemu(const RealQemu&) = delete;
  RealQemu& operator=(const RealQemu&) = delete;

 private:
  pid_t process_ = -1;
};

}  // namespace sami::tde::qmp
