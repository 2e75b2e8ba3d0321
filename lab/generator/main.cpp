// sami-lab-traffic: traffic between namespaces, and how it fared.
#include <cstdio>

#include "lab/generator/loop.h"

int main(int argc, char** argv) {
  const auto options = sami::lab::generator::parse_options({argv + 1, argv + argc});
  if (!options) {
    std::fprintf(stderr, "sami-lab-traffic: %s\n", options.error().message.c_str());
    return 2;
  }
  if (const auto ran = sami::lab::generator::run_generator(*options); !ran) {
    std::fprintf(stderr, "sami-lab-traffic: %s\n", ran.error().message.c_str());
    return 1;
  }
  return 0;
}
