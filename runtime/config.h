// Configuration files: YAML, read by key and type; every error is collected, with file, line and column, the path of
// the key, what was found and what was expected. A key that nobody asked for is an error.
//
//   auto config = Config::load("/etc/sami/som.yaml");
//   Section& root = config.root();
//   settings.name = root.text("name");                                        // required
//   settings.lease = root.milliseconds("lease_ms", {1000, 3'600'000}, 120'000);  // with a default
//   for (Section* tde : root.sections("tdes")) ...
//   if (auto errors = config.errors(); !errors.empty()) print them and exit
//
// A getter never fails: on an error it notes it and returns the default, or an empty value. Values may be used only
// when errors() is empty. Files "<name>/conf.d/*.yaml" beside "<name>.yaml" are read afterwards, in the order of their
// names: a top-level key there replaces the whole key. Not thread-safe.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/clock.h"
#include "runtime/result.h"

namespace sami {

// Octets in network order: 4 (IPv4) or 16 (IPv6). Error: InvalidInput.
Result<std::string> parse_address(std::string_view text);
struct AddressPrefix {
  std::string address;                        // octets; bits beyond length are zero
  std::uint32_t length = 0;
};
// "10.0.0.0/8" or a bare address. Error: InvalidInput, also when bits beyond the length are set.
Result<AddressPrefix> parse_prefix(std::string_view text);
// "02:00:00:00:00:01" as 6 octets.
Result<std::string> parse_mac(std::string_view text);
// Checks "host:port", "192.0.2.1:7500", "[2001:db8::1]:7500"; port 0 only if `any_port`.
Result<void> check_endpoint(std::string_view text, bool any_port);

struct Range {
  std::int64_t minimum = std::numeric_limits<std::int64_t>::min();
  std::int64_t maximum = std::numeric_limits<std::int64_t>::max();
};

// One mapping of the file. Lives as long as its Config; references stay valid.
class Section {
 public:
  ~Section();
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

  bool has(std::string_view key) const;       // does not count as asking for it
  std::vector<std::string> keys() const;      // in the order of the file; for maps whose keys are names

  // Without a default the key is required. Texts are not empty unless the default is.
  std::string text(std::string_view key);
  std::string text(std::string_view key, std::string_view missing);
  std::vector<std::string> texts(std::string_view key);                       // a list of texts, required, not empty
  std::vector<std::string> texts(std::string_view key, std::vector<std::string> missing);
  std::int64_t integer(std::string_view key, Range range);
  std::int64_t integer(std::string_view key, Range range, std::int64_t missing);
  Duration milliseconds(std::string_view key, Range range);                   // an integer, keys end in _ms
  Duration milliseconds(std::string_view key, Range range, std::int64_t missing);
  Duration seconds(std::string_view key, Range range, std::int64_t missing);  // keys end in _seconds
  bool boolean(std::string_view key, bool missing);
  // One of the words. Returns its index; `missing` is one too (-1: required).
  std::size_t word(std::string_view key, const std::vector<std::string_view>& words, std::ptrdiff_t missing = -1);
  template <typename Enum>
  Enum choice(std::string_view key, const std::vector<std::pair<std::string_view, Enum>>& choices, Enum missing) {
    std::vector<std::string_view> words;
    std::ptrdiff_t fallback = -1;
    for (const auto& [name, value] : choices) {
      if (value == missing) fallback = static_cast<std::ptrdiff_t>(words.size());
      words.push_back(name);
    }
    return choices[word(key, words, fallback)].second;
  }
  std::string address(std::string_view key);                                  // octets
  std::vector<std::string> addresses(std::string_view key);                   // octets; may be missing or empty
  std::vector<AddressPrefix> prefixes(std::string_view key);                  // may be missing or empty
  std::string mac(std::string_view key);                                      // octets; empty when missing
  std::string endpoint(std::string_view key, bool any_port = false);          // "host:port", checked
  std::string path(std::string_view key);                                     // absolute
  std::string path(std::string_view key, std::string_view missing);

  // A missing one is an empty one: its required keys are then missing, its defaults hold.
  Section& section(std::string_view key);
  std::vector<Section*> sections(std::string_view key);                       // a list of mappings; may be missing

  // The daemon's own checks: notes an error at the key (at the section, if it is missing).
  void reject(std::string_view key, std::string_view found, std::string_view expected);

  struct Implementation;                      // private to config.cpp
  explicit Section(std::unique_ptr<Implementation> implementation);

 private:
  friend class Config;
  std::unique_ptr<Implementation> implementation_;
};

class Config {
 public:
  // Never fails: a file that cannot be read or parsed is in errors().
  static Config load(const std::string& path);
  // For tests: `name` stands for the file.
  static Config parse(const std::string& text, const std::string& name);
  ~Config();
  Config(Config&&) noexcept;
  Config& operator=(Config&&) noexcept;

  Section& root();
  // All errors, one line each: "<file>:<line>:<column>: <key path>: found <x>, expected <y>". Includes the keys that
  // nobody asked for, so call it after reading.
  std::vector<std::string> errors() const;

 private:
  struct Implementation;
  explicit Config(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace sami
