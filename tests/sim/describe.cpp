// What a trace shows of messages and calls.
#include <fmt/format.h>

#include "tests/sim/world.h"

namespace sami::sim {

namespace {

namespace driver_call = protocol::driver_call;

std::string chunk_text(const std::string& bytes) {
  if_m_a::v1::StateChunk chunk;
  if (!chunk.ParseFromString(bytes)) return "garbage";
  std::string text = fmt::format("generation {} sequence {} round {} {} records", chunk.generation(), chunk.sequence(),
                                 chunk.round(), chunk.records_size());
  if (chunk.has_round_end()) text += " ends " + if_m_a::v1::RoundKind_Name(chunk.round_end().kind());
  for (const auto& record : chunk.records()) text += (record.gone() ? " -" : " +") + readable(record.key());
  return text;
}

template <typename Message>
std::string text_of(const Message& message) {
  std::string text = message.ShortDebugString();
  if (text.size() > 300) text.resize(300);
  return text;
}

}  // namespace

std::string readable(const state::Key& key) {
  if (key.size() != 13) return key.size() == 5 ? "counter" : "key?";
  const auto byte = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(key[i])); };
  return fmt::format("{}.{}>{}.{}:{}", byte(1), byte(4), byte(5), byte(8), (byte(11) << 8) | byte(12));
}

std::string describe(const if_m_a::v1::AgentMessage& message) {
  if (message.has_upload_state()) {
    return fmt::format("UploadState {}/{} {}", message.upload_state().transfer().migration_id(),
                       message.upload_state().transfer().transfer(), chunk_text(message.upload_state().chunk()));
  }
  return text_of(message);
}

std::string describe(const if_m_a::v1::MasterMessage& message) {
  if (message.has_download_state()) {
    return fmt::format("DownloadState {}/{} {}", message.download_state().transfer().migration_id(),
                       message.download_state().transfer().transfer(), chunk_text(message.download_state().chunk()));
  }
  if_m_a::v1::MasterMessage brief = message;
  if (brief.has_get_ready()) brief.mutable_get_ready()->clear_subject();
  if (brief.has_upload_request()) brief.mutable_upload_request()->clear_subject();
  return text_of(brief);
}

std::string describe(const if_m_t::v1::TdeMessage& message) {
  if_m_t::v1::TdeMessage brief = message;
  if (brief.has_notify()) brief.mutable_notify()->clear_subject();
  if (brief.has_inventory()) return "inventory";
  return brief.ShortDebugString();
}

std::string describe(const if_m_t::v1::MasterMessage& message) { return text_of(message); }

std::string describe(const protocol::DriverCall& call, const protocol::DriverReply& reply) {
  std::string text = fmt::format("{} {} {}/{} #{}", to_string(call), call.state_class, call.scope->migration_id,
                                 call.scope->transfer, call.id & 0xffffff);
  const auto* installed = std::get_if<protocol::Installed>(&reply.result);
  if (const auto* install = std::get_if<driver_call::Install>(&call.call); install != nullptr && installed != nullptr) {
    const auto* results = &installed->results;
    for (std::size_t i = 0; i < results->size() && i < install->items.size(); ++i) {
      const auto& item = install->items[i];
      text +=
          fmt::format(" {}{}{}{}={}", item.record.gone ? "-" : "+", readable(item.record.key), item.ours ? " ours" : "",
                      item.only_if_absent ? " if absent" : "", state::to_string((*results)[i].outcome));
    }
  }
  const auto list = [&](const std::vector<state::Key>& keys) {
    for (const auto& key : keys) text += " " + readable(key);
  };
  if (const auto* remove = std::get_if<driver_call::Remove>(&call.call)) list(remove->keys);
  if (const auto* read = std::get_if<driver_call::Read>(&call.call)) list(read->keys);
  const auto* finalized = std::get_if<protocol::Finalized>(&reply.result);
  const auto* changes = finalized != nullptr ? &finalized->changes : std::get_if<state::Changes>(&reply.result);
  if (changes != nullptr) {
    list(changes->keys);
    if (changes->overrun) text += " OVERRUN";
  }
  const auto* records =
      finalized != nullptr ? &finalized->records : std::get_if<std::vector<state::Record>>(&reply.result);
  if (records != nullptr) {
    for (const auto& record : *records) text += (record.gone ? " no:" : " ") + readable(record.key);
  }
  if (const auto* preparation = std::get_if<state::Preparation>(&reply.result)) list(preparation->present);
  if (const auto* count = std::get_if<std::uint64_t>(&reply.result)) text += fmt::format(" -> {}", *count);
  if (const auto* error = std::get_if<Error>(&reply.result)) text += " ERROR " + error->message;
  return text;
}

}  // namespace sami::sim
