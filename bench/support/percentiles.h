// What a benchmark says of many runs of one thing.
#pragma once

#include <vector>

namespace sami::bench {

// Nearest rank (ISO 3534): the smallest sample that at least `percent` of all samples do not exceed; 0 without samples.
double percentile(std::vector<double> samples, double percent);

}  // namespace sami::bench
