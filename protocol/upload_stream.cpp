#include "protocol/upload_stream.h"

#include "protocol/validation.h"

namespace sami::protocol {

void UploadStream::start(std::uint64_t generation, bool residue) {
  generation_ = generation;
  residue_ = residue;
  acknowledged_ = sent_ = 0;
  round_ = 1;
  queue_.clear();
  unacknowledged_.clear();
}

void UploadStream::add(const std::string& state_class, std::vector<state::Record> records) {
  if (records.empty()) return;
  Item item;
  item.round = round_;
  item.state_class = state_class;
  for (auto& record : records) {
    auto& out = item.records.emplace_back();
    out.set_key(std::move(record.key));
    out.set_gone(record.gone);
    if (!record.gone) out.set_body(std::move(record.body));
  }
  queue_.push_back(std::move(item));
}

void UploadStream::end_round(if_m_a::v1::RoundEnd end) {
  Item item;
  item.round = round_++;
  item.end = std::move(end);
  queue_.push_back(std::move(item));
}

std::string UploadStream::next_chunk(std::size_t chunk_bytes) {
  if_m_a::v1::StateChunk chunk;
  chunk.set_generation(generation_);
  chunk.set_sequence(++sent_);
  chunk.set_round(queue_.front().round);
  chunk.set_residue(residue_);
  Item& item = queue_.front();
  if (!item.records.empty()) {
    chunk.set_state_class(item.state_class);
    std::size_t size = item.state_class.size() + 64;
    while (!item.records.empty()) {
      const std::size_t more = item.records.front().ByteSizeLong() + 8;
      if (chunk.records_size() > 0 && size + more > chunk_bytes) break;
      size += more;
      *chunk.add_records() = std::move(item.records.front());
      item.records.pop_front();
    }
    if (!item.records.empty()) return chunk.SerializeAsString();
    queue_.pop_front();
  }
  if (!queue_.empty() && queue_.front().records.empty()) {
    *chunk.mutable_round_end() = std::move(queue_.front().end);
    queue_.pop_front();
  }
  return chunk.SerializeAsString();
}

std::vector<std::string> UploadStream::take(const Limits& limits) {
  std::vector<std::string> chunks;
  while (!queue_.empty() && unacknowledged_.size() < limits.window) {
    unacknowledged_.push_back(next_chunk(limits.chunk_bytes));
    chunks.push_back(unacknowledged_.back());
  }
  return chunks;
}

bool UploadStream::acknowledge(std::uint64_t received_through) {
  if (received_through > sent_) return false;
  while (acknowledged_ < received_through) {
    unacknowledged_.pop_front();
    ++acknowledged_;
  }
  return true;
}

}  // namespace sami::protocol
