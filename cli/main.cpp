// sami: the operator's command line. Options -> clients -> one command -> exit code.
#include <iostream>

#include "cli/client.h"
#include "cli/options.h"
#include "cli/run.h"

int main(int count, char** arguments) {
  using namespace sami::cli;
  const auto parsed = parse_options(count, arguments);
  if (const auto* stop = std::get_if<Stop>(&parsed)) {
    (stop->code == ExitCode::Done ? std::cout : std::cerr) << stop->output;
    return static_cast<int>(stop->code);
  }
  const auto& options = std::get<Options>(parsed);
  const Daemons daemons{
      [&] { return connect_master(options.connection); },
      [&] { return connect_agent(options.connection); },
      [&] { return connect_topology(options.connection); },
  };
  return static_cast<int>(run(options, daemons, std::cout, std::cerr));
}
