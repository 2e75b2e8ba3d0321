#include "runtime/journal.h"

#include "runtime/file.h"
#include "runtime/sqlite.h"

namespace sami {
namespace {

constexpr const char* schema = "CREATE TABLE journal (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID";

Result<void> check(const std::vector<JournalWrite>& writes) {
  for (const JournalWrite& write : writes)
    if (write.key.empty()) return failure(ErrorKind::InvalidInput, "a journal key is empty: expected a name");
  return {};
}

class SqliteJournal final : public Journal {
 public:
  SqliteJournal(sqlite::Database database, sqlite::Statement put, sqlite::Statement erase)
      : database_(std::move(database)), put_(std::move(put)), erase_(std::move(erase)) {}

  Result<JournalImage> load() override {
    auto rows = database_.prepare("SELECT key, value FROM journal");
    if (!rows) return tl::unexpected(rows.error());
    JournalImage image;
    while (true) {
      const auto row = rows->step();
      if (!row) return tl::unexpected(row.error());
      if (!*row) return image;
      image.emplace(rows->bytes(0), rows->bytes(1));
    }
  }

  Result<void> commit(const std::vector<JournalWrite>& writes) override {
    if (auto good = check(writes); !good) return good;
    if (writes.empty()) return {};
    return database_.transaction([&]() -> Result<void> {
      for (const JournalWrite& write : writes) {
        auto& statement = write.value ? put_ : erase_;
        statement.bind_blob(1, write.key);
        if (write.value) statement.bind_blob(2, *write.value);
        if (auto done = statement.run(); !done) return done;
      }
      return {};
    });
  }

 private:
  sqlite::Database database_;  // first: statements go before it
  sqlite::Statement put_;
  sqlite::Statement erase_;
};

}  // namespace

Result<std::unique_ptr<Journal>> open_journal(const std::string& folder) {
  if (auto made = make_private_folder(folder); !made) return tl::unexpected(made.error());
  auto database = sqlite::Database::open({.path = folder + "/journal.db", .schema = schema});
  if (!database) return tl::unexpected(database.error());
  auto put = database->prepare(
      "INSERT INTO journal (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value");
  if (!put) return tl::unexpected(put.error());
  auto erase = database->prepare("DELETE FROM journal WHERE key = ?1");
  if (!erase) return tl::unexpected(erase.error());
  return std::make_unique<SqliteJournal>(std::move(*database), std::move(*put), std::move(*erase));
}

Result<JournalImage> MemoryJournal::load() { return image_; }

Result<void> MemoryJournal::commit(const std::vector<JournalWrite>& writes) {
  if (auto good = check(writes); !good) return good;
  if (failures_ > 0) {
    --failures_;
    return tl::unexpected(error_);
  }
  for (const JournalWrite& write : writes) {
    if (write.value) image_[write.key] = *write.value;
    else image_.erase(write.key);
  }
  ++commits_;
  return {};
}

}  // namespace sami
