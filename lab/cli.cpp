#include "lab/cli.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>

#include "lab/demo.h"
#include "lab/gate_client.h"
#include "lab/hypervisor.h"
#include "lab/lab.h"
#include "lab/print.h"

namespace sami::lab {
namespace {

struct Wishes {
  std::string name = "usecase1";
  std::string usecase;
  std::string nat = "none";
  std::string output = "text";
  std::string vm;
  std::string server;
  bool no_sami = false;
  bool force = false;
  bool json = false;
  int pause = 0;
  int percent = 0;
  int connections = 20;
};

void print(const std::string& text) { std::fputs(text.c_str(), stdout); }

int complain(const Error& error) {
  std::fprintf(stderr, "sami-lab: %s\n", error.message.c_str());
  return 1;
}

int show(const Lab& lab, const Wishes& wishes) {
  print(wishes.output == "json" ? lab_as_json(lab) + "\n" : lab_as_text(lab));
  return 0;
}

int up(const Wishes& wishes) {
  LabOptions options;
  options.name = wishes.name;
  options.nat = *parse_nat(wishes.nat);
  options.with_sami = !wishes.no_sami;
  const auto lab = Lab::up(options);
  return lab ? show(*lab, wishes) : complain(lab.error());
}

int move(const Wishes& wishes) {
  auto lab = Lab::open(wishes.name);
  if (!lab) return complain(lab.error());
  std::unique_ptr<GateClient> gate;
  if (const auto tde = lab->daemon("tde1")) gate = make_gate_client(tde->control_socket);
  MoveOptions options;
  options.with_sami = !wishes.no_sami;
  options.force = wishes.force;
  options.pause = std::chrono::milliseconds(wishes.pause);
  const auto report = LabHypervisor(*lab, gate.get()).move(wishes.vm, wishes.server, options);
  if (!report) return complain(report.error());
  print(wishes.output == "json" ? move_as_json(*report) + "\n" : move_as_text(*report));
  return report->moved ? 0 : 1;
}

int demo(const Wishes& wishes) {
  const DemoOptions options{*parse_nat(wishes.nat), wishes.connections};
  const auto without = run_demo_arm(false, options);
  if (!without) return complain(without.error());
  const auto with = run_demo_arm(true, options);
  if (!with) return complain(with.error());
  print(demo_as_text(*without, *with));
  if (wishes.json) print(demo_as_json(*without, *with) + "\n");
  return !without->survived && with->survived ? 0 : 1;
}

int with_lab(const Wishes& wishes, const std::function<Result<void>(Lab&)>& action) {
  auto lab = Lab::open(wishes.name);
  if (!lab) return complain(lab.error());
  const auto done = action(*lab);
  return done ? 0 : complain(done.error());
}

class CommandLine {
 public:
  CommandLine() : app_("Topologies of the State Migration architecture, out of network namespaces.", "sami-lab") {
    app_.require_subcommand(1);
    add_up();
    add_move();
    add_others();
  }

  int run(int count, char** arguments) {
    try {
      app_.parse(count, arguments);
    } catch (const CLI::ParseError& problem) {
      return app_.exit(problem) == 0 ? 0 : 2;
    }
    if (::geteuid() != 0) return complain({ErrorKind::Failed, "network namespaces need root", 0});
    return action_();
  }

 private:
  CLI::App* add(const std::string& name, const std::string& help, std::function<int()> action) {
    auto* command = app_.add_subcommand(name, help);
    command->callback([this, action = std::move(action)] { action_ = action; });
    return command;
  }
  void add_nat(CLI::App* command) {
    command->add_option("--nat", wishes_.nat, "how the firewalls translate vm1")
        ->check(CLI::IsMember({"none", "snat", "dnat", "both", "masquerade", "shared"}))
        ->capture_default_str();
  }
  void add_output(CLI::App* command) {
    command->add_option("-o,--output", wishes_.output)->check(CLI::IsMember({"text", "json"}))->capture_default_str();
  }
  void add_name(CLI::App* command) {
    command->add_option("--name", wishes_.name, "name of the lab")->capture_default_str();
  }

  void add_up() {
    auto* command = add("up", "build a lab and start SAMI in it", [this] { return up(wishes_); });
    command->add_option("usecase", wishes_.usecase)->required()->check(CLI::IsMember({"usecase1"}));
    command->add_flag("--no-sami", wishes_.no_sami, "the topology only");
    add_nat(command);
    add_name(command);
    add_output(command);
  }

  void add_move() {
    auto* command = add("move", "move a VM as a live migration does", [this] { return move(wishes_); });
    command->add_option("vm", wishes_.vm)->required();
    command->add_option("server", wishes_.server)->required();
    command->add_option("--pause", wishes_.pause, "the VM stands still for at least so many milliseconds")
        ->check(CLI::Range(0, 600000));
    command->add_flag("--without-sami", wishes_.no_sami, "tell SAMI nothing");
    command->add_flag("--force", wishes_.force, "ask SAMI to go on regardless of failures");
    add_name(command);
    add_output(command);
  }

  void add_others() {
    auto* show_command = add("show", "print a lab", [this] {
      const auto lab = Lab::open(wishes_.name);
      return lab ? show(*lab, wishes_) : complain(lab.error());
    });
    add_name(show_command);
    add_output(show_command);
    auto* down_command = add("down", "remove a lab, also what a failed `up` left", [this] {
      const auto done = Lab::down(wishes_.name);
      return done ? 0 : complain(done.error());
    });
    down_command->add_option("name", wishes_.name)->capture_default_str();
    add("list", "names of the labs", [] {
      for (const auto& name : Lab::list()) print(name + "\n");
      return 0;
    });
    auto* loss = add("loss", "let the core drop packets at random",
                     [this] { return with_lab(wishes_, [this](Lab& lab) { return lab.set_loss(wishes_.percent); }); });
    loss->add_option("percent", wishes_.percent)->required()->check(CLI::Range(0, 100));
    add_name(loss);
    auto* demo_command = add("demo", "the same move without and with SAMI", [this] { return demo(wishes_); });
    demo_command->add_option("usecase", wishes_.usecase)->required()->check(CLI::IsMember({"usecase1"}));
    demo_command->add_option("--connections", wishes_.connections)->check(CLI::Range(1, 5000))->capture_default_str();
    demo_command->add_flag("--json", wishes_.json, "the result as JSON in the last line");
    add_nat(demo_command);
  }

  CLI::App app_;
  Wishes wishes_;
  std::function<int()> action_;
};

}  // namespace

int run_cli(int count, char** arguments) { return CommandLine().run(count, arguments); }

}  // namespace sami::lab
