// sami-lab: topologies out of network namespaces, for tests, the demo and the benchmarks.
#include "lab/cli.h"

int main(int argc, char** argv) { return sami::lab::run_cli(argc, argv); }
