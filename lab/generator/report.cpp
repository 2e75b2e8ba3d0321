#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lab/generator/generator.h"

namespace sami::lab::generator {
namespace {

std::string quoted(const std::vector<std::string>& items) {
  std::vector<std::string> each;
  for (const auto& item : items) each.push_back('"' + item + '"');  // addresses and error texts of libc: no escapes
  return fmt::format("[{}]", fmt::join(each, ","));
}

}  // namespace

void Report::error(const std::string& text) {
  if (errors.size() < 16) errors.push_back(text);
}

std::string to_json(const Report& r) {
  return fmt::format(
      R"({{"mode":"{}","connections":{},"established":{},"broken":{},"exchanges":{},"bytes":{},"mismatches":{},)"
      R"("sent":{},"lost":{},"changed_peers":{},"least_exchanges":{},"longest_stall_ms":{:.3f},"waiting_ms":{:.3f},)"
      R"("peers":{},"errors":{}}})",
      r.mode, r.connections, r.established, r.broken, r.exchanges, r.bytes, r.mismatches, r.sent, r.lost,
      r.changed_peers, r.least_exchanges, static_cast<double>(r.longest_stall) / 1000,
      static_cast<double>(r.waiting) / 1000, quoted(r.peers), quoted(r.errors));
}

}  // namespace sami::lab::generator
