#include "runtime/config.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

#include "runtime/file.h"

namespace sami {
namespace {

constexpr std::size_t maximum_file = 8 << 20;

std::string describe(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Scalar: {
      const std::string& text = node.Scalar();
      return fmt::format("\"{}{}\"", text.substr(0, 60), text.size() > 60 ? "..." : "");
    }
    case YAML::NodeType::Sequence: return "a list";
    case YAML::NodeType::Map: return "a mapping";
    default: return "nothing";
  }
}

std::string describe(Range range) {
  constexpr Range all;
  if (range.minimum == all.minimum && range.maximum == all.maximum) return "an integer";
  if (range.maximum == all.maximum) return fmt::format("an integer of at least {}", range.minimum);
  return fmt::format("an integer from {} to {}", range.minimum, range.maximum);
}

// Errors are shown in the order of the files' lines.
struct Problem {
  std::size_t file = 0;  // index into State::files
  int line = 0;          // from 1; 0: the file as a whole
  int column = 0;
  std::string text;
  bool missing = false;
};

struct State {
  std::vector<std::string> files;
  std::vector<Problem> problems;
  bool broken = false;  // a file could not be read: what is missing means nothing

  void add(std::size_t file, const YAML::Mark& mark, std::string text, bool missing = false) {
    const bool nowhere = mark.is_null();
    problems.push_back({file, nowhere ? 0 : mark.line + 1, nowhere ? 0 : mark.column + 1, std::move(text), missing});
  }
  void breaks(std::size_t file, const YAML::Mark& mark, std::string text) {
    add(file, mark, std::move(text));
    broken = true;
  }
};

struct Entry {
  std::string key;
  YAML::Node name;
  YAML::Node value;
  std::size_t file = 0;
};

// The entries of a mapping; a key that is there twice is an error (yaml-cpp takes either).
std::vector<Entry> entries_of(const YAML::Node& mapping, const std::string& path, std::size_t file, State& state) {
  std::vector<Entry> entries;
  for (const auto& item : mapping) {
    const YAML::Node& name = item.first;
    if (!name.IsScalar()) {
      state.add(file, name.Mark(), fmt::format("{}: found {} as a key, expected a word", path, describe(name)));
      continue;
    }
    const bool again =
        std::any_of(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == name.Scalar(); });
    if (again)
      state.add(file, name.Mark(), fmt::format("{}{}: found a second time, expected once", path, name.Scalar()));
    else entries.push_back({name.Scalar(), name, item.second, file});
  }
  return entries;
}

}  // namespace

struct Section::Implementation {
  State& state;
  std::string path;            // "" or "deadlines." or "tdes[1]."
  std::size_t file = 0;
  YAML::Mark mark = YAML::Mark::null_mark();
  std::vector<Entry> entries;
  std::set<std::string, std::less<>> asked = {};
  std::vector<std::unique_ptr<Section>> children = {};

  const Entry* peek(std::string_view key) const {
    const auto found =
        std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.key == key; });
    return found == entries.end() ? nullptr : &*found;
  }

  // The entry; a missing one is an error if it is required.
  const Entry* ask(std::string_view key, bool required, std::string_view expected) {
    asked.emplace(key);
    const Entry* entry = peek(key);
    if (entry == nullptr && required)
      state.add(file, mark, fmt::format("{}{}: missing, expected {}", path, key, expected), true);
    return entry;
  }

  void wrong(const Entry& entry, const YAML::Node& node, std::string_view expected) {
    state.add(entry.file, node.Mark(),
              fmt::format("{}{}: found {}, expected {}", path, entry.key, describe(node), expected));
  }

  // The text of a scalar, or nothing, with the error noted.
  std::optional<std::string> scalar(std::string_view key, bool required, std::string_view expected,
                                    bool empty = false) {
    const Entry* entry = ask(key, required, expected);
    if (entry == nullptr) return std::nullopt;
    if (entry->value.IsScalar() && (empty || !entry->value.Scalar().empty())) return entry->value.Scalar();
    wrong(*entry, entry->value, expected);
    return std::nullopt;
  }

  // A list of scalars, each turned into a value by convert.
  template <typename Value, typename Convert>
  std::optional<std::vector<Value>> list(std::string_view key, bool required, std::string_view expected,
                                         Convert convert) {
    const Entry* entry = ask(key, required, expected);
    if (entry == nullptr) return std::nullopt;
    std::vector<Value> values;
    if (!entry->value.IsSequence() || (required && entry->value.size() == 0)) {
      wrong(*entry, entry->value, expected);
      return values;
    }
    for (const YAML::Node& item : entry->value) {
      Result<Value> value = item.IsScalar() ? convert(item.Scalar()) : failure(ErrorKind::InvalidInput, "");
      if (value) values.push_back(std::move(*value));
      else wrong(*entry, item, expected);
    }
    return values;
  }

  Section& child(const std::string& child_path, std::size_t child_file, const YAML::Node& node) {
    for (const auto& known : children)
      if (known->implementation_->path == child_path) return *known;
    auto implementation = std::unique_ptr<Implementation>(
        new Implementation{state, child_path, child_file, node.Mark(), {}});
    implementation->entries = entries_of(node, implementation->path, child_file, state);
    children.push_back(std::make_unique<Section>(std::move(implementation)));
    return *children.back();
  }

  void unknown(std::vector<Problem>& problems) const {
    for (const Entry& entry : entries) {
      if (asked.contains(entry.key)) continue;
      std::string known;
      for (const std::string& key : asked) known += (known.empty() ? "" : ", ") + key;
      const YAML::Mark at = entry.name.Mark();
      problems.push_back({entry.file, at.line + 1, at.column + 1,
                          fmt::format("{}{}: unknown key, expected one of: {}", path, entry.key, known), false});
    }
    for (const auto& section : children) section->implementation_->unknown(problems);
  }
};

Section::Section(std::unique_ptr<Implementation> implementation) : implementation_(std::move(implementation)) {}
Section::~Section() = default;

bool Section::has(std::string_view key) const { return implementation_->peek(key) != nullptr; }

std::vector<std::string> Section::keys() const {
  std::vector<std::string> keys;
  for (const Entry& entry : implementation_->entries) keys.push_back(entry.key);
  return keys;
}

std::string Section::text(std::string_view key) { return implementation_->scalar(key, true, "a text").value_or(""); }
std::string Section::text(std::string_view key, std::string_view missing) {
  return implementation_->scalar(key, false, "a text", missing.empty()).value_or(std::string(missing));
}

namespace {
Result<std::string> same(const std::string& text) {
  if (text.empty()) return failure(ErrorKind::InvalidInput, "empty");
  return text;
}
}  // namespace

std::vector<std::string> Section::texts(std::string_view key) {
  return implementation_->list<std::string>(key, true, "a list of texts, not empty", same)
      .value_or(std::vector<std::string>());
}
std::vector<std::string> Section::texts(std::string_view key, std::vector<std::string> missing) {
  return implementation_->list<std::string>(key, false, "a list of texts", same).value_or(std::move(missing));
}

namespace {
std::optional<std::int64_t> parse_integer(const std::string& text, Range range) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (value < range.minimum || value > range.maximum) return std::nullopt;
  return value;
}
}  // namespace

std::int64_t Section::integer(std::string_view key, Range range) {
  const auto text = implementation_->scalar(key, true, describe(range));
  if (!text) return range.minimum;
  const auto value = parse_integer(*text, range);
  if (!value) reject(key, fmt::format("\"{}\"", *text), describe(range));
  return value.value_or(range.minimum);
}
std::int64_t Section::integer(std::string_view key, Range range, std::int64_t missing) {
  implementation_->asked.emplace(key);
  return has(key) ? integer(key, range) : missing;
}
Duration Section::milliseconds(std::string_view key, Range range) {
  return std::chrono::milliseconds(integer(key, range));
}
Duration Section::milliseconds(std::string_view key, Range range, std::int64_t missing) {
  return std::chrono::milliseconds(integer(key, range, missing));
}
Duration Section::seconds(std::string_view key, Range range, std::int64_t missing) {
  return std::chrono::seconds(integer(key, range, missing));
}

bool Section::boolean(std::string_view key, bool missing) { return word(key, {"false", "true"}, missing ? 1 : 0) == 1; }

std::size_t Section::word(std::string_view key, const std::vector<std::string_view>& words, std::ptrdiff_t missing) {
  const std::string expected = fmt::format("one of: {}", fmt::join(words, ", "));
  const std::size_t otherwise = missing < 0 ? 0 : static_cast<std::size_t>(missing);
  const auto text = implementation_->scalar(key, missing < 0, expected);
  if (!text) return otherwise;
  const auto found = std::find(words.begin(), words.end(), *text);
  if (found != words.end()) return static_cast<std::size_t>(found - words.begin());
  reject(key, fmt::format("\"{}\"", *text), expected);
  return otherwise;
}

std::string Section::address(std::string_view key) {
  constexpr std::string_view expected = "an IPv4 or IPv6 address";
  const auto text = implementation_->scalar(key, true, expected);
  if (!text) return "";
  const auto octets = parse_address(*text);
  if (!octets) reject(key, fmt::format("\"{}\"", *text), expected);
  return octets.value_or("");
}
std::vector<std::string> Section::addresses(std::string_view key) {
  return implementation_->list<std::string>(key, false, "a list of IPv4 or IPv6 addresses", parse_address)
      .value_or(std::vector<std::string>());
}
std::vector<AddressPrefix> Section::prefixes(std::string_view key) {
  return implementation_
      ->list<AddressPrefix>(key, false,
                            "a list of prefixes as 10.0.0.0/8 or 2001:db8::/32, no bits set beyond their length",
                            parse_prefix)
      .value_or(std::vector<AddressPrefix>());
}
std::string Section::mac(std::string_view key) {
  constexpr std::string_view expected = "a MAC address as \"02:00:00:00:00:01\"";
  const auto text = implementation_->scalar(key, false, expected);
  if (!text) return "";
  const auto octets = parse_mac(*text);
  if (!octets) reject(key, fmt::format("\"{}\"", *text), expected);
  return octets.value_or("");
}
std::string Section::endpoint(std::string_view key, bool any_port) {
  constexpr std::string_view expected = "host:port, as 192.0.2.1:7500 or \"[2001:db8::1]:7500\"";
  const auto text = implementation_->scalar(key, true, expected);
  if (text && !check_endpoint(*text, any_port)) reject(key, fmt::format("\"{}\"", *text), expected);
  return text.value_or("");
}
std::string Section::path(std::string_view key) {
  const auto text = implementation_->scalar(key, true, "an absolute path");
  if (text && text->front() != '/') reject(key, fmt::format("\"{}\"", *text), "an absolute path");
  return text.value_or("");
}
std::string Section::path(std::string_view key, std::string_view missing) {
  implementation_->asked.emplace(key);
  return has(key) ? path(key) : std::string(missing);
}

Section& Section::section(std::string_view key) {
  Implementation& self = *implementation_;
  const Entry* entry = self.ask(key, false, "a mapping");
  const std::string path = fmt::format("{}{}.", self.path, key);
  if (entry != nullptr && entry->value.IsMap()) return self.child(path, entry->file, entry->value);
  if (entry != nullptr && !entry->value.IsNull()) self.wrong(*entry, entry->value, "a mapping");
  auto& child = self.child(path, self.file, YAML::Node(YAML::NodeType::Map));
  child.implementation_->mark = entry == nullptr ? self.mark : entry->name.Mark();
  return child;
}

std::vector<Section*> Section::sections(std::string_view key) {
  Implementation& self = *implementation_;
  const Entry* entry = self.ask(key, false, "a list of mappings");
  if (entry == nullptr) return {};
  if (!entry->value.IsSequence()) {
    self.wrong(*entry, entry->value, "a list of mappings");
    return {};
  }
  std::vector<Section*> result;
  for (std::size_t i = 0; i < entry->value.size(); ++i) {
    const YAML::Node item = entry->value[i];
    if (item.IsMap()) result.push_back(&self.child(fmt::format("{}{}[{}].", self.path, key, i), entry->file, item));
    else self.wrong(*entry, item, "a mapping");
  }
  return result;
}

void Section::reject(std::string_view key, std::string_view found, std::string_view expected) {
  const Entry* entry = implementation_->peek(key);
  implementation_->state.add(entry == nullptr ? implementation_->file : entry->file,
                             entry == nullptr ? implementation_->mark : entry->value.Mark(),
                             fmt::format("{}{}: found {}, expected {}", implementation_->path, key, found, expected));
}

struct Config::Implementation {
  State state;
  std::unique_ptr<Section> root;

  // The file's top-level keys go over those of the files before it.
  void add_file(const std::string& name, const Result<std::string>& text, std::vector<Entry>& entries) {
    const std::size_t file = state.files.size();
    state.files.push_back(name);
    if (!text) return state.breaks(file, YAML::Mark::null_mark(), text.error().message);
    try {
      const YAML::Node document = YAML::Load(*text);
      if (document.IsNull()) return;
      if (!document.IsMap())
        return state.breaks(file, document.Mark(), fmt::format("found {}, expected a mapping", describe(document)));
      for (Entry& entry : entries_of(document, "", file, state)) {
        std::erase_if(entries, [&](const Entry& earlier) { return earlier.key == entry.key; });
        entries.push_back(std::move(entry));
      }
    } catch (const YAML::Exception& error) {
      state.breaks(file, error.mark, "not YAML: " + error.msg);
    }
  }

  void finish(std::vector<Entry> entries) {
    root = std::make_unique<Section>(std::unique_ptr<Section::Implementation>(
        new Section::Implementation{state, "", 0, YAML::Mark::null_mark(), std::move(entries)}));
  }
};

Config::Config(std::unique_ptr<Implementation> implementation) : implementation_(std::move(implementation)) {}
Config::~Config() = default;
Config::Config(Config&&) noexcept = default;
Config& Config::operator=(Config&&) noexcept = default;

Config Config::load(const std::string& path) {
  auto implementation = std::make_unique<Implementation>();
  std::vector<Entry> entries;
  implementation->add_file(path, read_file(path, maximum_file), entries);
  std::vector<std::string> more;
  std::error_code ignored;
  const auto folder = std::filesystem::path(path).replace_extension() / "conf.d";
  for (std::filesystem::directory_iterator item(folder, ignored), end; !ignored && item != end; item.increment(ignored))
    if (item->path().extension() == ".yaml") more.push_back(item->path().string());
  std::sort(more.begin(), more.end());
  for (const std::string& file : more) implementation->add_file(file, read_file(file, maximum_file), entries);
  implementation->finish(std::move(entries));
  return Config(std::move(implementation));
}

Config Config::parse(const std::string& text, const std::string& name) {
  auto implementation = std::make_unique<Implementation>();
  std::vector<Entry> entries;
  implementation->add_file(name, text, entries);
  implementation->finish(std::move(entries));
  return Config(std::move(implementation));
}

Section& Config::root() { return *implementation_->root; }

std::vector<std::string> Config::errors() const {
  const State& state = implementation_->state;
  std::vector<Problem> problems = state.problems;
  if (state.broken) std::erase_if(problems, [](const Problem& problem) { return problem.missing; });
  else implementation_->root->implementation_->unknown(problems);
  std::stable_sort(problems.begin(), problems.end(), [](const Problem& a, const Problem& b) {
    return std::tie(a.file, a.line, a.column) < std::tie(b.file, b.line, b.column);
  });
  std::vector<std::string> lines;
  for (const Problem& problem : problems) {
    const std::string place = problem.line == 0 ? "" : fmt::format(":{}:{}", problem.line, problem.column);
    lines.push_back(fmt::format("{}{}: {}", state.files[problem.file], place, problem.text));
  }
  return lines;
}

}  // namespace sami
