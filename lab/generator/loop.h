// The loop of sami-lab-traffic: drives one generator, answers "report" on standard input with a line of JSON, and ends
// with a last one on "stop", at the end of standard input, on SIGTERM or SIGINT, or when its time is over.
#pragma once

#include <string>
#include <vector>

#include "lab/generator/generator.h"

namespace sami::lab::generator {

// Errors: InvalidInput, saying which argument and what was expected.
Result<Options> parse_options(const std::vector<std::string>& arguments);

// Blocks until the end. Error: of starting.
Result<void> run_generator(const Options& options);

}  // namespace sami::lab::generator
