#include "runtime/journald.h"

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <sys/stat.h>
#include <sys/uio.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include <cstdlib>

namespace sami::journald {
namespace {

int priority(LogLevel level) {
  switch (level) {
    case LogLevel::Trace:
    case LogLevel::Debug: return LOG_DEBUG;
    case LogLevel::Info: return LOG_INFO;
    case LogLevel::Warning: return LOG_WARNING;
    case LogLevel::Error: return LOG_ERR;
  }
  return LOG_INFO;
}

// Names of fields: upper case letters, digits, '_'; the first one a letter (systemd.journal-fields(7)).
std::string field_name(const std::string& key) {
  std::string name;
  for (const char c : key) {
    if (c >= 'a' && c <= 'z') name += static_cast<char>(c - 'a' + 'A');
    else name += (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c : '_';
  }
  if (name.empty() || name[0] < 'A' || name[0] > 'Z') name.insert(0, "F");
  return name;
}

}  // namespace

bool is_standard_error() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status = {};
  if (stream == nullptr || fstat(STDERR_FILENO, &status) != 0) return false;
  return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino) == stream;
}

std::vector<std::string> entries(LogLevel level, std::string_view message, const std::vector<Field>& fields) {
  std::vector<std::string> result = {"MESSAGE=" + std::string(message),
                                     "PRIORITY=" + std::to_string(priority(level))};
  for (const Field& field : fields) result.push_back(field_name(field.key) + "=" + field.value);
  return result;
}

bool send(const std::vector<std::string>& entries) {
  std::vector<iovec> parts;
  for (const std::string& entry : entries) parts.push_back({const_cast<char*>(entry.data()), entry.size()});
  return sd_journal_sendv(parts.data(), static_cast<int>(parts.size())) == 0;
}

}  // namespace sami::journald
