// Canonical records, as a source may send them, into the driver of a destination: what it says is what is there.
#include <google/protobuf/stubs/logging.h>

#include "state/connection_tracking/render.h"
#include "tests/fuzz/inputs.h"

using namespace sami;
using namespace sami::state::connection_tracking;

namespace {

void parse_only(const std::string& body) {
  const auto decoded = decode_body(body);
  if (render_text(body).has_value() != decoded.has_value() || render_json(body).has_value() != decoded.has_value())
    fuzz::broken("text, JSON and decoding disagree");
  if (!decoded) return;
  const auto again = decode_body(encode_body(*decoded));
  if (!again || digest_of(*again) != digest_of(*decoded)) fuzz::broken("a record encodes to another");
  const auto key = encode_key({decoded->vn_name, decoded->entry.original});
  if (const auto parts = decode_key(key); !parts || parts->original != decoded->entry.original)
    fuzz::broken("a key decodes to another");
}

state::InstallItem item_of(fuzz::Input& input) {
  state::InstallItem item;
  const std::uint8_t kind = input.octet();
  if (kind % 16 == 15) {
    item.record.key = input.text();
    item.record.body = input.text();
  } else {
    const Connection connection = fuzz::connection(input);
    item.record.key = encode_key({connection.vn_name, connection.entry.original});
    item.record.body = encode_body(connection);
  }
  item.record.gone = kind & 16;
  item.ours = kind & 32;
  item.only_if_absent = kind & 64;
  return item;
}

void install_one(state::Driver& driver, netlink::Conntrack& conntrack, const state::Scope& scope,
                 const state::InstallItem& item) {
  using state::InstallOutcome;
  const auto before = conntrack.table().count().value();
  const auto results = driver.install(scope, {item});
  if (!results || results->size() != 1) fuzz::broken("install answers something else");
  const auto& result = results->at(0);
  const auto after = conntrack.table().count().value();
  if (!succeeded(result.outcome) && before != after) fuzz::broken("a failed item leaves a trace");
  if (result.outcome == InstallOutcome::Removed && item.record.gone == false)
    fuzz::broken("only what is gone is removed");
  const bool placed = result.outcome == InstallOutcome::Installed || result.outcome == InstallOutcome::Updated ||
                      result.outcome == InstallOutcome::Replaced;
  if (!placed) return;
  const auto read = driver.read(scope, {item.record.key});
  if (!read || read->at(0).gone) fuzz::broken("what was installed is not there");
  const bool kept_status =
      scope.conflict_rule == state::common::CONFLICT_RULE_MOVED && result.outcome == InstallOutcome::Updated;
  if (!kept_status && read->at(0).digest != result.digest) fuzz::broken("what was installed reads back differently");
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const std::uint8_t mode = input.octet();
  if (mode & 1) {
    parse_only(input.rest());
    (void)decode_key(input.rest());
    return 0;
  }
  netlink::MemoryConntrackOptions options;
  options.maximum_entries = 24;
  const auto conntrack = netlink::make_memory_conntrack(options);
  const auto driver = state::make_connection_tracking_driver(*conntrack, fuzz::config());
  state::Scope scope;
  scope.migration_id = "m1";
  scope.subject = fuzz::subject();
  if (mode & 2) scope.conflict_rule = state::common::CONFLICT_RULE_MOVED;
  for (int items = 0; items < 64 && !input.empty(); ++items) install_one(*driver, *conntrack, scope, item_of(input));
  const auto swept = driver->sweep(scope);
  if (!swept || conntrack->table().count().value() != 0) fuzz::broken("the sweep leaves something");
  return 0;
}
