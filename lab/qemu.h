// vm1 of a lab as the guest of real QEMUs (TCG): one process for each server where it is or is moved to, its NIC a tap
// on that server's bridge. The guest echoes TCP and UDP on port 7001. It is moved by QEMU's own live migration; whether
// a gate takes part is the TDE's business, which has a QMP monitor of its own.
//
// When the guest resumes at its destination the fabric follows: its address is announced there.
//
// Threading: one object per thread; every call blocks. Needs root and a lab that is up with LabOptions::qemu.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lab/hypervisor.h"
#include "lab/lab.h"
#include "runtime/result.h"

namespace sami::lab {

struct GuestImage {
  std::string kernel;
  std::string initrd;
};
// Made by lab/guest/make.sh once per build folder. Error: Unsupported (no QEMU, no network to fetch a kernel), and why.
Result<GuestImage> guest_image();

struct QemuMoveOptions {
  enum class At { Active, Paused, GoneOn };   // at the source: copying, pre-switchover, after migrate-continue
  std::string port = "tap0";                  // at the destination
  bool hold = false;                          // set pause-before-switchover ourselves: somebody calls go_on()
  std::function<void(At)> on_reaching = {};   // once each
  std::chrono::milliseconds deadline{60000};  // of the whole move
};

struct QemuMove {
  bool moved = false;
  std::string status;              // of the source's migration at the end: "completed", "cancelled", "failed"
  double gate_ms = 0;              // pre-switchover to device, by QEMU's clock; 0: it was not held
  double not_running_ms = 0;       // STOP to RESUME, wherever
  double total_ms = 0;             // from `migrate` to the end
  std::vector<MoveStep> timeline;  // QEMU's events, since `migrate`
};
std::string to_string(const QemuMove& move);

class QemuGuest {
 public:
  struct Options {
    std::string server = "server1";
    std::string port = "tap0";
    bool gate = true;  // with a QMP socket where the TDE looks for it
  };
  // Boots it (about 4 s) and announces it. Errors: Failed with QEMU's words or the guest's.
  static Result<QemuGuest> boot(Lab& lab, const GuestImage& image, const Options& options);
  QemuGuest(QemuGuest&&) noexcept;
  QemuGuest& operator=(QemuGuest&&) noexcept;
  ~QemuGuest();  // kills its processes

  // Starts a QEMU at the server that waits for it, migrates, and ends the one that has lost. Errors: InvalidInput,
  // Failed, Retry (deadline; both still run).
  Result<QemuMove> move(const std::string& server, const QemuMoveOptions& options = {});
  // From on_reaching, or another moment of a move: what an operator does.
  Result<void> cancel();
  Result<void> go_on();
  Result<void> kill_destination();  // kill -9

  const std::string& server() const;
  Result<std::string> status();  // of query-status where it is

 private:
  class Implementation;
  explicit QemuGuest(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace sami::lab
