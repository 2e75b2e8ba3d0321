// A line from a QMP monitor: every one is a message, or an error that says what was expected.
#include "tde/qemu/qmp_message.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>

using namespace sami::tde;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto message = qmp::parse({reinterpret_cast<const char*>(data), size});
  const auto broken = [](const char* rule) {
    std::fprintf(stderr, "broken: %s\n", rule);
    std::abort();
  };
  if (!message && message.error().message.empty()) broken("an error without words");
  if (!message) return 0;
  if (const auto* event = std::get_if<qmp::Event>(&*message)) {
    if (event->microseconds < 0) broken("a time before all time");
    if (event->data.size() > qmp::Fields::kMaximum) broken("more members than are taken");
  }
  if (const auto* answer = std::get_if<qmp::Answer>(&*message)) {
    if (!answer->error.empty() && answer->error_class.empty()) broken("an error without a class");
  }
  return 0;
}
