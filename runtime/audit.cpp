#include "runtime/audit.h"

#include <algorithm>
#include <limits>

#include "runtime/file.h"
#include "runtime/sqlite.h"

namespace sami {
namespace {

constexpr const char* schema =
    "CREATE TABLE audit (number INTEGER PRIMARY KEY AUTOINCREMENT, wall_microseconds INTEGER NOT NULL,"
    " migration TEXT NOT NULL, subject TEXT NOT NULL, event TEXT NOT NULL, detail TEXT NOT NULL) STRICT;"
    "CREATE INDEX audit_migration ON audit (migration);"
    "CREATE INDEX audit_subject ON audit (subject);"
    "CREATE INDEX audit_wall ON audit (wall_microseconds)";

class SqliteAudit final : public Audit {
 public:
  SqliteAudit(sqlite::Database database, sqlite::Statement insert, sqlite::Statement trim, std::uint64_t max_rows)
      : database_(std::move(database)),
        insert_(std::move(insert)),
        trim_(std::move(trim)),
        max_rows_(static_cast<std::int64_t>(
            std::min<std::uint64_t>(max_rows, std::numeric_limits<std::int64_t>::max()))) {}

  Result<void> append(const std::vector<AuditRecord>& records) override {
    if (records.empty()) return {};
    return database_.transaction([&]() -> Result<void> {
      for (const AuditRecord& record : records) {
        insert_.bind_integer(1, record.wall).bind_text(2, record.migration_id).bind_text(3, record.subject_id);
        insert_.bind_text(4, record.event).bind_text(5, record.detail);
        if (auto done = insert_.run(); !done) return done;
      }
      return trim_.bind_integer(1, max_rows_).run();
    });
  }

  Result<std::vector<AuditRecord>> query(const AuditQuery& query) override {
    std::string sql =
        "SELECT wall_microseconds, migration, subject, event, detail FROM audit WHERE wall_microseconds >= ?1";
    if (query.to != 0) sql += " AND wall_microseconds <= ?2";
    if (!query.migration_id.empty()) sql += " AND migration = ?3";
    if (!query.subject_id.empty()) sql += " AND subject = ?4";
    auto rows = database_.prepare(sql + " ORDER BY number DESC LIMIT ?5");
    if (!rows) return tl::unexpected(rows.error());
    rows->bind_integer(1, query.from).bind_integer(5, query.limit);
    if (query.to != 0) rows->bind_integer(2, query.to);
    if (!query.migration_id.empty()) rows->bind_text(3, query.migration_id);
    if (!query.subject_id.empty()) rows->bind_text(4, query.subject_id);
    std::vector<AuditRecord> found;
    while (true) {
      const auto row = rows->step();
      if (!row) return tl::unexpected(row.error());
      if (!*row) break;
      found.push_back({rows->integer(0), rows->bytes(1), rows->bytes(2), rows->bytes(3), rows->bytes(4)});
    }
    std::reverse(found.begin(), found.end());
    return found;
  }

 private:
  sqlite::Database database_;  // first: statements go before it
  sqlite::Statement insert_;
  sqlite::Statement trim_;
  const std::int64_t max_rows_;
};

Result<std::unique_ptr<Audit>> open_at(const std::string& path, std::uint64_t max_rows) {
  auto database =
      sqlite::Database::open({.path = path, .schema = schema, .survives_power_loss = false, .check = false});
  if (!database) return tl::unexpected(database.error());
  auto insert = database->prepare(
      "INSERT INTO audit (wall_microseconds, migration, subject, event, detail) VALUES (?1, ?2, ?3, ?4, ?5)");
  if (!insert) return tl::unexpected(insert.error());
  auto trim = database->prepare("DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?1");
  if (!trim) return tl::unexpected(trim.error());
  return std::make_unique<SqliteAudit>(std::move(*database), std::move(*insert), std::move(*trim), max_rows);
}

}  // namespace

Result<std::unique_ptr<Audit>> open_audit(const std::string& folder, std::uint64_t max_rows) {
  if (auto made = make_private_folder(folder); !made) return tl::unexpected(made.error());
  return open_at(folder + "/audit.db", max_rows);
}

std::unique_ptr<Audit> make_memory_audit(std::uint64_t max_rows) {
  auto audit = open_at(":memory:", max_rows);
  return audit ? std::move(*audit) : nullptr;
}

}  // namespace sami
