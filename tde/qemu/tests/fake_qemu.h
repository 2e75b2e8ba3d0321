// QEMU as its QMP monitor shows it, scripted: VMs of nothing that migrate between two of these. It is held against the
// real one by the conformance test.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/loop.h"
#include "tde/qemu/qmp_message.h"

namespace sami::tde::qmp {

class FakeQemu;

// What the fakes of a test share: who waits for an incoming migration at which URI.
using FakeNetwork = std::map<std::string, FakeQemu*>;

class FakeQemu {
 public:
  // Listens on the path. incoming: as with "-incoming defer".
  FakeQemu(std::string path, bool incoming, FakeNetwork& network, Loop& loop);
  ~FakeQemu();  // as if killed
  FakeQemu(const FakeQemu&) = delete;
  FakeQemu& operator=(const FakeQemu&) = delete;

  void say(const std::string& line);         // to its client, whatever it is
  void say_bytes(const std::string& bytes);  // and no end of line
  void hang_up();                            // closes the connection; a new one is taken
  void execute(const Command& command);      // as from a second monitor; refusals are dropped
  void be_silent() { silent_ = true; }
  const std::string& run_state() const { return run_state_; }
  bool running() const { return run_state_ == "running"; }
  std::int64_t bandwidth() const { return bandwidth_; }
  bool capability(const std::string& name) const { return capabilities_.count(name) != 0 && capabilities_.at(name); }
  const std::vector<std::string>& commands() const { return commands_; }  // names, in order

 private:
  struct Given;
  void accept();
  void read();
  void take(const std::string& line);
  std::string answer(Given& command);  // "" : no error; else a class and a description, parted by ':'
  std::string migration_command(const Given& command);
  std::string begin(const std::string& uri);
  void copy();
  void switch_over();
  void end_at_source(const std::string& status);
  void event(const std::string& name, const std::string& data = "");
  void migration(const std::string& status);
  void after(int milliseconds, void (FakeQemu::*step)());

  std::string path_;
  FakeNetwork& network_;
  Loop& loop_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  int listener_ = -1;
  int connection_ = -1;
  Loop::WatchId listening_ = 0;
  Loop::WatchId reading_ = 0;
  std::string input_;
  bool negotiated_ = false;
  bool silent_ = false;
  std::string run_state_;
  std::string status_ = "none";  // of its migration
  std::string destination_;      // URI
  std::string waits_at_;         // URI
  std::int64_t bandwidth_ = 128 * 1024 * 1024;
  std::map<std::string, bool> capabilities_;
  std::vector<std::string> commands_;
};

}  // namespace sami::tde::qmp
