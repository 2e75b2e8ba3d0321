// The journal of systemd (sd_journal_sendv(3)), so that a line's fields can be searched: journalctl MIGRATION_ID=...
// Private to log.cpp. Thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/log.h"

namespace sami::journald {

// True: standard error goes to the journal (JOURNAL_STREAM, systemd.exec(5)).
bool is_standard_error();
// "MESSAGE=...", "PRIORITY=...", one "NAME=value" per field; names in upper case, other characters become '_'.
std::vector<std::string> entries(LogLevel level, std::string_view message, const std::vector<Field>& fields);
// False: the journal did not take it.
bool send(const std::vector<std::string>& entries);

}  // namespace sami::journald
