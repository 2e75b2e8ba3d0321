// What `sami` exits with. `sami --help` lists them; scripts rely on it.
#pragma once

namespace sami::cli {

enum class ExitCode : int {
  Done = 0,
  Failed = 1,       // it was tried and did not succeed; also: a migration ended ROLLED_BACK
  Usage = 2,        // the command line is wrong
  NotFound = 3,     // no such host, VM, migration, ...
  Denied = 4,       // the certificate's role does not allow it
  Unreachable = 5,  // the daemon does not answer
  Refused = 6,      // it makes no sense in the present state; the message says what to do instead
  TimedOut = 7,     // --wait ran out of time; the migration goes on
  Loss = 8,         // the migration ended DONE_WITH_LOSS
  InDoubt = 9,      // the migration is IN_DOUBT: an operator may resolve it
  Different = 10,   // state diff: the hosts differ
};

}  // namespace sami::cli
