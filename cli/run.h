// Carries a command out: asks the daemon, prints the answer, says with what to exit.
#pragma once

#include <functional>
#include <memory>
#include <ostream>

#include "cli/client.h"
#include "cli/options.h"

namespace sami::cli {

// Connects when first needed. Tests hand in their own.
struct Daemons {
  std::function<std::unique_ptr<MasterClient>()> master;
  std::function<std::unique_ptr<AgentClient>()> agent;
  std::function<std::unique_ptr<TopologyClient>()> topology;
};

// Answers to out, problems to err as "sami: <sentence>". Blocks until done.
ExitCode run(const Options& options, const Daemons& daemons, std::ostream& out, std::ostream& err);

// run.cpp's parts, by noun.
ExitCode run_state(const command::StateShow& command, bool json, MasterClient& master, std::ostream& out,
                   std::ostream& err);
ExitCode run_state(const command::StateDiff& command, bool json, MasterClient& master, std::ostream& out,
                   std::ostream& err);
ExitCode run_notify(const command::Notify& command, bool json, TopologyClient& topology, std::ostream& out,
                    std::ostream& err);
ExitCode run_pki(const command::PkiInit& command, std::ostream& out, std::ostream& err);
ExitCode run_pki(const command::PkiIssue& command, std::ostream& out, std::ostream& err);
ExitCode run_pki(const command::PkiShow& command, std::ostream& out, std::ostream& err);

ExitCode report(std::ostream& err, const Problem& problem);
// The exit code that an ended migration deserves; Done while it is open.
ExitCode exit_code_of(const api::Migration& migration);

}  // namespace sami::cli
