// The command line of sami-lab. Exit codes: 0 done, 1 failed (or a move that did not take place), 2 wrong command line.
#pragma once

namespace sami::lab {

int run_cli(int count, char** arguments);

}  // namespace sami::lab
