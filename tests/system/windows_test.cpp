// Exact TCP windows: the destination knows sequence and acknowledgement numbers as the source knew them. Transfers that
// run flat out survive any number of moves without one INVALID packet, and a segment out of the window is refused from
// the first one on.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <regex>

#include "kernel/windows/window_reader.h"
#include "lab/namespace.h"
#include "lab/poll.h"
#include "tests/system/system_test.h"

namespace sami::lab {
namespace {

using ::testing::SizeIs;

// One entry of `conntrack -L`.
netlink::ConntrackEntry parse_entry(const std::string& line) {
  static const std::regex kTuple(R"(src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+))");
  const std::vector<std::smatch> tuples{std::sregex_iterator(line.begin(), line.end(), kTuple), {}};
  const auto tuple = [&](std::size_t i) {
    const auto& m = tuples.at(i);
    return netlink::ConntrackTuple{netlink::parse_address(m[1]).value(), netlink::parse_address(m[2]).value(),
                                   IPPROTO_TCP, static_cast<std::uint16_t>(std::stoi(m[3])),
                                   static_cast<std::uint16_t>(std::stoi(m[4]))};
  };
  netlink::ConntrackEntry entry;
  entry.original = tuple(0);
  entry.reply = tuple(1);
  return entry;
}

std::uint16_t checksum(const std::vector<std::uint8_t>& octets) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < octets.size(); i += 2)
    sum += static_cast<std::uint32_t>(octets[i] << 8 | octets[i + 1]);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<std::uint16_t>(~sum));
}

template <typename T>
void append(std::vector<std::uint8_t>& octets, const T& value) {
  const auto* first = reinterpret_cast<const std::uint8_t*>(&value);
  octets.insert(octets.end(), first, first + sizeof value);
}

// A bare acknowledgement as the reply end of the connection would send it.
std::vector<std::uint8_t> acknowledgement(const netlink::ConntrackTuple& from, std::uint32_t sequence,
                                          std::uint32_t number) {
  tcphdr tcp{};
  tcp.source = htons(from.source_port);
  tcp.dest = htons(from.destination_port);
  tcp.seq = htonl(sequence);
  tcp.ack_seq = htonl(number);
  tcp.doff = 5;
  tcp.ack = 1;
  tcp.window = htons(500);
  iphdr ip{};
  ip.version = 4;
  ip.ihl = 5;
  ip.ttl = 64;
  ip.protocol = IPPROTO_TCP;
  std::memcpy(&ip.saddr, from.source.octets.data(), 4);
  std::memcpy(&ip.daddr, from.destination.octets.data(), 4);
  std::vector<std::uint8_t> covered;
  append(covered, ip.saddr);
  append(covered, ip.daddr);
  append(covered, htons(IPPROTO_TCP));
  append(covered, htons(sizeof tcp));
  append(covered, tcp);
  tcp.check = checksum(covered);
  std::vector<std::uint8_t> packet;
  append(packet, ip);
  append(packet, tcp);
  return packet;
}

class WindowsTest : public SystemTest {
 protected:
  void SetUp() override {
    SystemTest::SetUp();
    if (IsSkipped()) return;
    if (const auto reader = windows::WindowReader::load(); !reader) GTEST_SKIP() << reader.error().message;
  }
  std::optional<windows::TcpWindow> window_at(const std::string& firewall, const netlink::ConntrackEntry& entry) {
    std::optional<windows::TcpWindow> window;
    EXPECT_TRUE(inside_namespace(lab().namespace_of(firewall), [&] {
      auto reader = windows::WindowReader::load();
      if (auto read = (*reader)->read({netlink::key_of(entry)})) window = read->at(0);
    }));
    return window;
  }
  void send_as(const std::string& node, const netlink::ConntrackTuple& from, std::uint32_t sequence,
               std::uint32_t number) {
    EXPECT_TRUE(inside_namespace(lab().namespace_of(node), [&] {
      const int raw = ::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
      sockaddr_in to{AF_INET, 0, {}, {}};
      std::memcpy(&to.sin_addr, from.destination.octets.data(), 4);
      const auto packet = acknowledgement(from, sequence, number);
      EXPECT_EQ(::sendto(raw, packet.data(), packet.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to),
                static_cast<ssize_t>(packet.size()));
      ::close(raw);
    }));
  }
};

class Refusal : public WindowsTest, public ::testing::WithParamInterface<Nat> {};

TEST_P(Refusal, SegmentOutOfTheWindowIsRefusedFromTheFirstOneOn) {
  up(GetParam());
  auto quiet = converse("vm1", "vm3", kVm3Address, 7009, 7009, TrafficKind::TcpEcho, 1, 2000);
  ASSERT_TRUE(quiet.client.wait_for_progress(1));
  const auto before = entries("fw1");
  ASSERT_THAT(before, SizeIs(1));
  const auto at_source = window_at("fw1", parse_entry(before[0]));
  ASSERT_TRUE(at_source);

  const auto report = move("server2");
  ASSERT_TRUE(report.moved);
  ASSERT_EQ(report.final_state, "DONE");
  ASSERT_THAT(entries("fw2"), SizeIs(1));
  const auto entry = parse_entry(entries("fw2")[0]);
  const auto window = window_at("fw2", entry);
  ASSERT_TRUE(window && windows::is_exact(*window));
  EXPECT_TRUE(windows::stands_for(*window, *at_source));
  ASSERT_EQ(invalid_packets(), 0u);

  const auto& known = *window;
  send_as("vm3", entry.reply, known.reply.maximum_end + 100'000, known.original.end);
  EXPECT_TRUE(poll_until(std::chrono::seconds(10), [&] { return invalid_packets() == 1; }));
  send_as("vm3", entry.reply, known.reply.end, known.original.end);  // within it
  send_as("vm3", entry.reply, known.reply.end, known.original.end + 100'000);
  EXPECT_TRUE(poll_until(std::chrono::seconds(10), [&] { return invalid_packets() == 2; }));
  EXPECT_TRUE(quiet.client.wait_for_progress(1, std::chrono::seconds(20)));
  EXPECT_EQ(invalid_packets(), 2u);
}

INSTANTIATE_TEST_SUITE_P(Translations, Refusal, ::testing::Values(Nat::None, Nat::Snat),
                         [](const auto& nat) { return std::string(to_string(nat.param)); });

TEST_F(WindowsTest, TenUploadsOverEightyMovesUnderLoss) {
  constexpr int kUploads = 10, kMoves = 80;
  up(Nat::Snat);
  auto uploads = converse("vm1", "vm3", kVm3Address, 7001, 7001, TrafficKind::TcpUpload, kUploads, 0, 20000);
  ASSERT_TRUE(lab().set_loss(1));
  std::vector<double> pauses;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kMoves; ++i) {
    const auto report = move(i % 2 == 0 ? "server2" : "server1");
    ASSERT_TRUE(report.moved) << "move " << i << ": " << report.detail;
    ASSERT_EQ(report.final_state, "DONE") << "move " << i;
    pauses.push_back(report.paused_milliseconds);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const auto progress = uploads.client.wait_for_progress(20, std::chrono::seconds(20));
  EXPECT_TRUE(progress) << progress.error().message;
  EXPECT_EQ(invalid_packets(), 0u);
  const auto here = entries("fw1");
  EXPECT_THAT(here, SizeIs(kUploads));
  for (const auto& line : here) {
    const auto window = window_at("fw1", parse_entry(line));
    EXPECT_TRUE(window && windows::is_exact(*window)) << line;
  }
  const auto server = uploads.server.report();
  const auto client = uploads.client.stop();
  ASSERT_TRUE(client && server);
  EXPECT_EQ(client->broken + server->broken, 0) << to_string(*client) << "\n" << to_string(*server);
  EXPECT_EQ(client->mismatches + server->mismatches, 0u);
  std::sort(pauses.begin(), pauses.end());
  RecordProperty("seconds", static_cast<int>(took.count()));
  RecordProperty("median_pause_us", static_cast<int>(pauses[kMoves / 2] * 1000));
  std::printf("%d moves in %.1f s, median pause %.1f ms\n", kMoves, took.count(), pauses[kMoves / 2]);
}

}  // namespace
}  // namespace sami::lab
