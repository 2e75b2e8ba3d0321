// SQLite 3 behind Results. Private to journal.cpp and audit.cpp. Not thread-safe; blocking.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace sami::sqlite {

class Statement {
 public:
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}
  ~Statement();
  Statement(Statement&& other) noexcept : statement_(std::exchange(other.statement_, nullptr)) {}
  Statement& operator=(Statement&& other) noexcept;

  // Positions count from 1. The bytes must live until the statement has run.
  Statement& bind_blob(int position, std::string_view bytes);
  Statement& bind_text(int position, std::string_view text);
  Statement& bind_integer(int position, std::int64_t value);
  // True: there is a row. At the end, and on an error, the statement can be bound and run again.
  Result<bool> step();
  Result<void> run();                         // to its end, rows are ignored
  // Columns count from 0; of the row that step() found.
  std::string bytes(int column) const;
  std::int64_t integer(int column) const;

 private:
  sqlite3_stmt* statement_;
};

struct OpenOptions {
  std::string path;                           // ":memory:" too
  std::string schema;                         // run once, on a new database
  int version = 1;                            // of the schema
  bool survives_power_loss = true;            // synchronous=FULL, else NORMAL
  bool check = true;                          // look through the whole file
};

class Database {
 public:
  // WAL, mode 0600, locked for this process alone. Errors: see runtime/journal.h open_journal.
  static Result<Database> open(const OpenOptions& options);
  ~Database();
  Database(Database&& other) noexcept;
  Database& operator=(Database&&) = delete;

  Result<Statement> prepare(std::string_view sql);
  Result<void> execute(const std::string& sql);
  // BEGIN, body, COMMIT; ROLLBACK on an error.
  template <typename Body>
  Result<void> transaction(Body body) {
    Result<void> result = execute("BEGIN IMMEDIATE");
    if (result) result = body();
    if (result) result = execute("COMMIT");
    if (!result) abandon();
    return result;
  }

 private:
  Database(sqlite3* handle, std::string path) : handle_(handle), path_(std::move(path)) {}
  Result<void> configure(const OpenOptions& options);
  Result<void> prepare_schema(const OpenOptions& options);
  void abandon();

  sqlite3* handle_;
  std::string path_;
};

}  // namespace sami::sqlite
