#include "som/config.h"

#include <fmt/format.h>

#include <set>

#include "interfaces/transport/pki.h"

namespace sami::som {
namespace {

constexpr std::int64_t kHour = 3'600'000;
constexpr Range kDeadline{100, 24 * kHour};

std::uint32_t small(std::int64_t value) { return static_cast<std::uint32_t>(value); }

// `valid` says "<what>: expected <...>".
void expect(Section& section, std::string_view key, const std::string& found, const Result<void>& valid) {
  if (found.empty() || valid) return;
  constexpr std::string_view word = "expected ";
  const auto at = valid.error().message.find(word);
  section.reject(key, found, valid.error().message.substr(at == std::string::npos ? 0 : at + word.size()));
}

void read_identity(Section& root, Settings& settings) {
  settings.name = root.text("name");
  expect(root, "name", settings.name, transport::check_name(settings.name));
  settings.domain = root.text("domain");
  expect(root, "domain", settings.domain, transport::check_domain(settings.domain));
  settings.machine.identity = transport::Identity{settings.domain, "som", settings.name}.uri();
  Section& pki = root.section("pki");
  settings.credentials = {pki.path("ca"), pki.path("certificate"), pki.path("key")};
}

void read_classes(Section& root, Settings& settings) {
  std::set<std::string> names;
  for (Section* section : root.sections("classes")) {
    common::v1::ClassRequirement requirement;
    requirement.set_state_class(section->text("name"));
    requirement.set_essential(section->boolean("essential", true));
    if (!requirement.state_class().empty() && !names.insert(requirement.state_class()).second)
      section->reject("name", requirement.state_class(), "each class once");
    settings.machine.classes.push_back(std::move(requirement));
  }
  if (settings.machine.classes.empty())
    root.reject("classes", "no class", "a list of {name, essential} with at least one");
}

void read_peers(Section& root, Settings& settings) {
  std::set<std::string> names;
  for (Section* section : root.sections("tdes")) {
    TdeRule rule{section->text("name"), section->texts("subjects")};
    expect(*section, "name", rule.name, transport::check_name(rule.name));
    if (!rule.name.empty() && !names.insert(rule.name).second) section->reject("name", rule.name, "each TDE once");
    settings.tdes.push_back(std::move(rule));
  }
  settings.agents = root.texts("agents", {"*"});
}

void read_deadlines(Section& root, protocol::SomConfig& machine) {
  Section& deadlines = root.section("deadlines");
  machine.prepare_deadline = deadlines.milliseconds("prepare_ms", kDeadline, 10'000);
  machine.precopy_deadline = deadlines.milliseconds("precopy_ms", kDeadline, 300'000);
  machine.standby_deadline = deadlines.milliseconds("standby_ms", kDeadline, 600'000);
  machine.switch_deadline = deadlines.milliseconds("switch_ms", kDeadline, 2'000);
  machine.completion_deadline = deadlines.milliseconds("completion_ms", kDeadline, 60'000);
  machine.outcome_deadline = deadlines.milliseconds("outcome_ms", kDeadline, 30'000);
  machine.release_deadline = deadlines.milliseconds("release_ms", kDeadline, 30'000);
  machine.rollback_deadline = deadlines.milliseconds("rollback_ms", kDeadline, 30'000);
  machine.lease_ms = small(root.integer("lease_ms", {1'000, kHour}, 120'000));
  machine.grace_ms = small(root.integer("grace_ms", {0, 60'000}, 2'000));
}

}  // namespace

Settings read_settings(Config& config) {
  Section& root = config.root();
  Settings settings;
  read_identity(root, settings);
  settings.listen = root.endpoint("listen");
  settings.state_folder = root.path("state");
  settings.control_socket = root.path("control_socket", "/run/sami/som.sock");
  read_classes(root, settings);
  read_peers(root, settings);
  read_deadlines(root, settings.machine);
  Section& limits = root.section("limits");
  settings.machine.max_migrations = small(limits.integer("migrations", {1, 100'000}, 1'000));
  settings.machine.max_transfers = small(limits.integer("transfers", {1, 64}, 64));
  settings.sessions = static_cast<std::size_t>(limits.integer("sessions", {1, 1'000'000}, 20'000));
  const std::string level = root.section("log").text("level", "info");
  if (auto parsed = parse_log_level(level))
    settings.log_level = *parsed;
  else
    root.section("log").reject("level", level, "trace, debug, info, warning or error");
  return settings;
}

LoadedSettings load_settings(const std::string& path) {
  Config config = Config::load(path);
  LoadedSettings loaded{read_settings(config), {}};
  if (config.errors().empty())
    pki::check_configured(config, loaded.settings.credentials, loaded.settings.machine.identity);
  loaded.errors = config.errors();
  return loaded;
}

std::vector<std::string> restart_needed(const Settings& running, const Settings& wanted) {
  const auto deadlines = [](const Settings& s) {
    const auto& m = s.machine;
    return std::tuple(m.prepare_deadline, m.precopy_deadline, m.standby_deadline, m.switch_deadline,
                      m.completion_deadline, m.outcome_deadline, m.release_deadline, m.rollback_deadline);
  };
  const auto limits = [](const Settings& s) {
    return std::tuple(s.machine.max_migrations, s.machine.max_transfers, s.sessions);
  };
  const auto files = [](const Settings& s) {
    return std::tie(s.credentials.ca_file, s.credentials.certificate_file, s.credentials.key_file);
  };
  std::vector<std::string> keys;
  const auto note = [&](bool same, const char* key) {
    if (!same) keys.emplace_back(key);
  };
  note(running.name == wanted.name, "name");
  note(running.domain == wanted.domain, "domain");
  note(running.listen == wanted.listen, "listen");
  note(files(running) == files(wanted), "pki");
  note(running.state_folder == wanted.state_folder, "state");
  note(running.control_socket == wanted.control_socket, "control_socket");
  note(deadlines(running) == deadlines(wanted), "deadlines");
  note(running.machine.lease_ms == wanted.machine.lease_ms, "lease_ms");
  note(running.machine.grace_ms == wanted.machine.grace_ms, "grace_ms");
  note(limits(running) == limits(wanted), "limits");
  return keys;
}

}  // namespace sami::som
