// The source's end of one transfer's stream: records become numbered chunks, at most `window` of them unacknowledged;
// exactly those are kept, and repeated together (go-back-N). Pure. Private to protocol/.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "interfaces/if_m_a/if_m_a.pb.h"
#include "state/driver.h"

namespace sami::protocol {

class UploadStream {
 public:
  struct Limits {
    std::uint32_t window = 8;
    std::size_t chunk_bytes = 128 * 1024;
  };

  // Starts over: what was queued or unacknowledged is forgotten. residue: so is every round of this generation.
  void start(std::uint64_t generation, bool residue = false);
  void add(const std::string& state_class, std::vector<state::Record> records);
  void end_round(if_m_a::v1::RoundEnd end);

  // The chunks that the window allows now, each once.
  std::vector<std::string> take(const Limits& limits);
  const std::deque<std::string>& unacknowledged() const { return unacknowledged_; }
  // False: nothing that was sent carries this number.
  bool acknowledge(std::uint64_t received_through);

  std::uint32_t round() const { return round_; }
  bool everything_sent() const { return queue_.empty(); }
  bool everything_acknowledged() const { return queue_.empty() && unacknowledged_.empty(); }

 private:
  struct Item {
    std::uint32_t round = 0;
    std::string state_class;
    std::deque<if_m_a::v1::StateRecord> records;  // empty: the end of the round
    if_m_a::v1::RoundEnd end;
  };
  std::string next_chunk(std::size_t chunk_bytes);

  std::uint64_t generation_ = 0;
  bool residue_ = false;
  std::uint64_t acknowledged_ = 0;  // sequence
  std::uint64_t sent_ = 0;
  std::uint32_t round_ = 1;
  std::deque<Item> queue_;
  std::deque<std::string> unacknowledged_;
};

}  // namespace sami::protocol
