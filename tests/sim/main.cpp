// sami-sim: runs seeds of the simulated world, checks the nine invariants at every step, and shows that it has teeth.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/world.h"

namespace {

using sami::sim::Broken;
using sami::sim::Mutation;
using sami::sim::World;

struct Options {
  std::uint64_t seeds = 10'000;
  std::uint64_t from = 1;
  Mutation mutation = Mutation::None;
  std::string mutation_name;
  bool trace = false;
  bool all_mutations = false;
  bool keep_going = false;
};

struct Outcome {
  std::optional<Broken> broken;
  std::uint64_t hash = 0;
  std::uint64_t events = 0;
};

Outcome run_seed(std::uint64_t seed, Mutation mutation, bool trace) {
  World world(seed, mutation, trace);
  Outcome outcome;
  try {
    world.run();
  } catch (const Broken& broken) {
    outcome.broken = broken;
  }
  outcome.hash = world.engine.hash();
  outcome.events = world.engine.events();
  return outcome;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool replays_exactly(std::uint64_t seed) {
  const Outcome first = run_seed(seed, Mutation::None, false);
  const Outcome second = run_seed(seed, Mutation::None, false);
  if (first.hash == second.hash && first.events == second.events) return true;
  fmt::print("seed {}: two runs differ: {:016x} and {:016x}\n", seed, first.hash, second.hash);
  return false;
}

int run_seeds(const Options& options) {
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t events = 0;
  std::uint64_t failures = 0;
  for (std::uint64_t seed = options.from; seed < options.from + options.seeds; ++seed) {
    const Outcome outcome = run_seed(seed, options.mutation, options.trace);
    events += outcome.events;
    if (options.trace) fmt::print("seed {}: {} events, hash {:016x}\n", seed, outcome.events, outcome.hash);
    if (!outcome.broken) continue;
    ++failures;
    fmt::print("seed {}: rule {} broken: {}\n", seed, outcome.broken->rule, outcome.broken->sentence);
    fmt::print("replay: sami-sim --seeds 1 --from {}{} --trace\n", seed,
               options.mutation_name.empty() ? "" : " --mutation " + options.mutation_name);
    std::fflush(stdout);
    if (!options.keep_going) return EXIT_FAILURE;
  }
  bool exact = true;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(options.seeds, 20); ++i)
    exact = exact && replays_exactly(options.from + i);
  fmt::print("{} seeds from {}, {} broken, {} events, {:.1f} s\n", options.seeds, options.from, failures, events,
             seconds_since(start));
  return failures == 0 && exact ? EXIT_SUCCESS : EXIT_FAILURE;
}

// Every mutation must be found, by the rule that it breaks, within so many seeds.
int run_mutations(const Options& options) {
  bool all = true;
  for (const auto& info : sami::sim::mutations()) {
    const auto start = std::chrono::steady_clock::now();
    std::uint64_t tried = 0;
    std::optional<Broken> found;
    while (tried < options.seeds && !(found && found->rule == info.rule)) {
      found = run_seed(options.from + tried, info.mutation, false).broken;
      ++tried;
    }
    const bool hit = found && found->rule == info.rule;
    all = all && hit;
    fmt::print("rule {} {:<26} {} after {} seeds, {:.1f} s{}\n", info.rule, info.name, hit ? "found" : "NOT FOUND",
               tried, seconds_since(start), hit ? ": " + found->sentence : "");
    std::fflush(stdout);
  }
  return all ? EXIT_SUCCESS : EXIT_FAILURE;
}

[[noreturn]] void usage() {
  fmt::print(
      "usage: sami-sim [--seeds N] [--from S] [--mutation NAME] [--trace] [--keep-going]\n"
      "       sami-sim --all-mutations [--seeds N] [--from S]\n"
      "mutations:");
  for (const auto& info : sami::sim::mutations()) fmt::print(" {}", info.name);
  fmt::print("\n");
  std::exit(2);
}

Options parse(const std::vector<std::string>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    const bool more = i + 1 < arguments.size();
    char* end = nullptr;
    if ((word == "--seeds" || word == "--from") && more) {
      (word == "--seeds" ? options.seeds : options.from) = std::strtoull(arguments[++i].c_str(), &end, 10);
      if (end == arguments[i].c_str() || *end != '\0') usage();
    } else if (word == "--mutation" && more) {
      options.mutation_name = arguments[++i];
      for (const auto& info : sami::sim::mutations()) {
        if (info.name == options.mutation_name) options.mutation = info.mutation;
      }
      if (options.mutation == Mutation::None) usage();
    } else if (word == "--trace") {
      options.trace = true;
    } else if (word == "--keep-going") {
      options.keep_going = true;
    } else if (word == "--all-mutations") {
      options.all_mutations = true;
    } else {
      usage();
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(std::vector<std::string>(argv + 1, argv + argc));
  return options.all_mutations ? run_mutations(options) : run_seeds(options);
}
