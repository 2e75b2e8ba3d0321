// What a daemon must remember across a crash: a map from key to value, changed by whole transactions.
//
// Two twins, one conformance suite: SQLite and memory. Not thread-safe.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/result.h"

namespace sami {

struct JournalWrite {
  std::string key;                    // printable, '/'-separated, not empty
  std::optional<std::string> value;   // nullopt: erase (a key that is not there is fine)
};
using JournalImage = std::map<std::string, std::string>;

class Journal {
 public:
  virtual ~Journal() = default;
  // Everything that was committed. Blocks on the disk. Errors: Corrupt, Failed.
  virtual Result<JournalImage> load() = 0;
  // All of it is durable when this returns success, none of it on an error; later writes of a key win. Blocks for one
  // fsync. Errors: Failed (full disk, ...), Corrupt, InvalidInput (empty key). After an error the caller starts over
  // from load().
  virtual Result<void> commit(const std::vector<JournalWrite>& writes) = 0;
};

// "<folder>/journal.db": WAL, synchronous=FULL; the folder is made 0700, files 0600. Held exclusively until destroyed.
// Errors: InvalidInput (another process has it open, a newer schema, folder not ours), Corrupt, Failed.
Result<std::unique_ptr<Journal>> open_journal(const std::string& folder);

// The twin in memory. Copies of `image` outlive it, so a test can "crash" and start again from image().
class MemoryJournal final : public Journal {
 public:
  explicit MemoryJournal(JournalImage image = {}) : image_(std::move(image)) {}
  Result<JournalImage> load() override;
  Result<void> commit(const std::vector<JournalWrite>& writes) override;

  const JournalImage& image() const { return image_; }
  // Each of the next `count` commits fails with this error and changes nothing.
  void fail_commits(std::size_t count, Error error) { failures_ = count; error_ = std::move(error); }
  std::size_t commits() const { return commits_; }    // that succeeded

 private:
  JournalImage image_;
  std::size_t failures_ = 0;
  std::size_t commits_ = 0;
  Error error_;
};

}  // namespace sami
