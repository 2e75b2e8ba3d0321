#include "runtime/sqlite.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace sami::sqlite {
namespace {

constexpr std::int64_t application_id = 0x53414d49;  // "SAMI", PRAGMA application_id

tl::unexpected<Error> error_of(sqlite3* handle, const std::string& path) {
  const int code = sqlite3_errcode(handle) & 0xff;
  const int system_error = sqlite3_system_errno(handle);
  if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
    return failure(ErrorKind::InvalidInput, path + " is in use by another process: expected to be the only one");
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) {
    return failure(ErrorKind::Corrupt, fmt::format("{} is damaged ({}): put a copy back, or move it away to begin anew",
                                                   path, sqlite3_errmsg(handle)));
  }
  const std::string cause = system_error != 0 ? std::string(": ") + std::strerror(system_error) : "";
  return failure(ErrorKind::Failed, fmt::format("{}: {}{}", path, sqlite3_errmsg(handle), cause), system_error);
}

// SQLite would create the file by the umask; its -wal takes the mode of the file.
Result<void> create_closed(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  struct stat status = {};
  if (file < 0 || fstat(file, &status) != 0) {
    const int error = errno;
    if (file >= 0) close(file);
    return failure(ErrorKind::Failed, fmt::format("cannot open {}: {}", path, std::strerror(error)), error);
  }
  const bool closed = (status.st_mode & 0077) == 0 || fchmod(file, 0600) == 0;
  close(file);
  if (!closed) return failure(ErrorKind::InvalidInput, path + " belongs to another user and others may open it");
  return {};
}

}  // namespace

Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::operator=(Statement&& other) noexcept {
  std::swap(statement_, other.statement_);
  return *this;
}

Statement& Statement::bind_blob(int position, std::string_view bytes) {
  // A null pointer would bind NULL.
  sqlite3_bind_blob64(statement_, position, bytes.empty() ? "" : bytes.data(), bytes.size(), SQLITE_STATIC);
  return *this;
}
Statement& Statement::bind_text(int position, std::string_view text) {
  sqlite3_bind_text64(statement_, position, text.empty() ? "" : text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8);
  return *this;
}
Statement& Statement::bind_integer(int position, std::int64_t value) {
  sqlite3_bind_int64(statement_, position, value);
  return *this;
}

Result<bool> Statement::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  sqlite3* handle = sqlite3_db_handle(statement_);
  Result<bool> result = false;
  if (code != SQLITE_DONE) result = error_of(handle, sqlite3_db_filename(handle, "main"));
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  return result;
}

Result<void> Statement::run() {
  while (true) {
    const Result<bool> row = step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return {};
  }
}

std::string Statement::bytes(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  return data == nullptr ? std::string()
                         : std::string(data, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
}
std::int64_t Statement::integer(int column) const { return sqlite3_column_int64(statement_, column); }

Database::Database(Database&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)), path_(std::move(other.path_)) {}
Database::~Database() { sqlite3_close(handle_); }

Result<Database> Database::open(const OpenOptions& options) {
  if (options.path != ":memory:") {
    if (auto created = create_closed(options.path); !created) return tl::unexpected(created.error());
  }
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(options.path.c_str(), &handle,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(handle, options.path);
  if (code != SQLITE_OK) return error_of(handle, options.path);
  if (auto configured = database.configure(options); !configured) return tl::unexpected(configured.error());
  if (auto prepared = database.prepare_schema(options); !prepared) return tl::unexpected(prepared.error());
  return database;
}

Result<void> Database::configure(const OpenOptions& options) {
  sqlite3_extended_result_codes(handle_, 1);
  // locking_mode before the first access: WAL then needs no shared memory, and the lock is kept.
  for (const std::string& sql : {std::string("PRAGMA locking_mode=EXCLUSIVE"), std::string("PRAGMA journal_mode=WAL"),
                                 std::string(options.survives_power_loss ? "PRAGMA synchronous=FULL"
                                                                         : "PRAGMA synchronous=NORMAL"),
                                 std::string("BEGIN EXCLUSIVE; COMMIT")}) {
    if (auto done = execute(sql); !done) return done;
  }
  if (!options.check) return {};
  auto check = prepare("PRAGMA quick_check(1)");
  if (!check) return tl::unexpected(check.error());
  const auto row = check->step();
  if (!row) return tl::unexpected(row.error());
  if (!*row || check->bytes(0) != "ok") {
    return failure(ErrorKind::Corrupt, fmt::format("{} is damaged ({}): put a copy back, or move it away to begin anew",
                                                   path_, *row ? check->bytes(0) : "no answer"));
  }
  return check->run();
}

Result<void> Database::prepare_schema(const OpenOptions& options) {
  const auto number = [this](const char* sql) -> Result<std::int64_t> {
    auto statement = prepare(sql);
    if (!statement) return tl::unexpected(statement.error());
    const auto row = statement->step();
    if (!row) return tl::unexpected(row.error());
    return statement->integer(0);
  };
  const auto version = number("PRAGMA user_version");
  const auto application = number("PRAGMA application_id");
  const auto tables = number("SELECT count(*) FROM sqlite_schema");
  if (!version) return tl::unexpected(version.error());
  if (!application) return tl::unexpected(application.error());
  if (!tables) return tl::unexpected(tables.error());
  if (*tables == 0) {
    return transaction([&] {
      return execute(options.schema + fmt::format("; PRAGMA user_version={}; PRAGMA application_id={}", options.version,
                                                  application_id));
    });
  }
  if (*application != application_id)
    return failure(ErrorKind::InvalidInput, path_ + " is a database of another program");
  if (*version != options.version) {
    return failure(ErrorKind::InvalidInput, fmt::format("{} has schema version {}: this program expects {}", path_,
                                                        *version, options.version));
  }
  return {};
}

Result<Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(handle_, sql.data(), static_cast<int>(sql.size()), &statement, nullptr) != SQLITE_OK)
    return error_of(handle_, path_);
  return Statement(statement);
}

Result<void> Database::execute(const std::string& sql) {
  if (sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return error_of(handle_, path_);
  return {};
}

void Database::abandon() {
  if (sqlite3_get_autocommit(handle_) == 0) sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
}

}  // namespace sami::sqlite
