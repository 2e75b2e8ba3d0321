// Who has no business with the running daemons: refused with a clear reason at both ends, logged, no trace left; the
// daemons live on, and a migration takes place afterwards. (A peer with a valid certificate that misuses it is in
// hostile_test.cpp.)
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "interfaces/transport/pki.h"
#include "lab/daemons.h"
#include "lab/namespace.h"
#include "lab/poll.h"
#include "lab/process.h"
#include "runtime/file.h"
#include "tests/system/system_test.h"

namespace sami::lab {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr std::chrono::milliseconds kPatience{20000};
constexpr int kConnections = 5;
constexpr const char* kRefused = "a connection was refused before it had an identity";

// A connection of somebody who does not speak the protocol.
class Stranger {
 public:
  static Stranger to_master(const Lab& lab) {
    Stranger made;
    const auto entered = inside_namespace(lab.namespace_of("fw2"), [&] {
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_port = htons(7500);
      inet_pton(AF_INET, usecase1::kSomAddress, &address.sin_addr);
      made.connect_to(AF_INET, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    });
    if (!entered) throw std::runtime_error(entered.error().message);
    return made;
  }
  static Stranger to_socket(const std::string& path) {
    Stranger made;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    made.connect_to(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    return made;
  }
  Stranger(Stranger&& other) noexcept : socket_(std::exchange(other.socket_, -1)) {}
  Stranger& operator=(Stranger&&) = delete;
  ~Stranger() {
    if (socket_ >= 0) ::close(socket_);
  }

  bool send(const std::string& bytes) const {
    return ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  }
  // The other end has closed it; what it sent before is thrown away.
  bool is_closed() const {
    std::array<char, 4096> bytes;
    for (;;) {
      const auto count = ::recv(socket_, bytes.data(), bytes.size(), MSG_DONTWAIT);
      if (count > 0) continue;
      return count == 0 || errno != EAGAIN;
    }
  }

 private:
  Stranger() = default;
  void connect_to(int family, const sockaddr* address, socklen_t size) {
    socket_ = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(socket_, address, size) != 0) throw std::runtime_error("nobody listens");
  }
  int socket_ = -1;
};

class RefusalTest : public SystemTest {
 protected:
  void begin() {
    up(Nat::None);
    traffic_.emplace(vm1_traffic(TrafficKind::TcpEcho, kConnections));
    descriptors_ = descriptors();
  }

  std::string log_of(const std::string& name) {
    const auto text = read_file(lab().daemon(name)->log, 16 << 20);
    return text ? *text : "";
  }
  testing::AssertionResult is_logged(const std::string& name, const std::string& words) {
    if (poll_until(kPatience, [&] { return log_of(name).find(words) != std::string::npos; })) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << name << " has not logged: " << words;
  }

  std::size_t descriptors() {
    std::size_t count = 0;
    const std::string folder = "/proc/" + std::to_string(lab().daemon("som1")->process.pid) + "/fd";
    for ([[maybe_unused]] const auto& each : fs::directory_iterator(folder)) ++count;
    return count;
  }

  // Everybody is there, nothing is left of the visit, and the next migration takes place.
  void expect_unharmed() {
    for (const auto& daemon : lab().state().daemons) {
      EXPECT_TRUE(is_running(daemon.process)) << daemon.name;
      EXPECT_TRUE(ask_status(daemon.program, daemon.control_socket)) << daemon.name;
    }
    const auto connected = wait_until_connected(lab());
    EXPECT_TRUE(connected) << connected.error().message;
    // An operator's call may be ending.
    EXPECT_TRUE(poll_until(kPatience, [&] { return descriptors() <= descriptors_ + 2; }))
        << descriptors() << " descriptors, " << descriptors_ << " before";
    const auto hosts = Json::parse(sami({"host", "list"}));
    EXPECT_THAT(hosts, ::testing::SizeIs(2)) << hosts.dump(2);
    EXPECT_TRUE(Json::parse(sami({"migration", "list"})).empty());
    const auto report = move("server2");
    EXPECT_EQ(report.final_state, "DONE");
    expect_whole(*traffic_, kConnections);
  }

  std::optional<Conversers> traffic_;
  std::size_t descriptors_ = 0;
};

// ---- an agent whose certificate is not in order: it runs, and dials with another one the next time

// Makes fw2.pem and fw2.key in the folder `scratch`, out of the lab's.
using MakeCertificate = std::function<void(const std::string& pki, const std::string& scratch)>;

struct Certificate {
  std::string name;
  MakeCertificate make;
  std::string agent_says;
  std::string master_logs;  // empty: the agent does not even dial
};

void expect_made(const Result<pki::Files>& made) { ASSERT_TRUE(made) << made.error().message; }

void make_foreign(const std::string&, const std::string& scratch) {
  expect_made(pki::make_authority(scratch, "lab.example"));
  expect_made(pki::issue(scratch, "soa", "fw2", 30, {}));
}

// Of the right authority, for a TDE.
void make_of_a_tde(const std::string& folder, const std::string& scratch) {
  fs::create_directory(scratch);
  for (const char* file : {"ca.pem", "ca.key"}) fs::copy_file(folder + "/" + file, scratch + "/" + file);
  expect_made(pki::issue(scratch, "tde", "fw2", 30, {}));
}

void make_expired(const std::string& folder, const std::string& scratch) {
  fs::create_directory(scratch);
  fs::copy_file(folder + "/fw2.key", scratch + "/fw2.key");
  const std::string request = scratch + "/request.pem", extensions = scratch + "/extensions";
  ASSERT_TRUE(write_file(extensions, "subjectAltName=URI:spiffe://lab.example/sami/soa/fw2\n", 0600));
  const auto requested =
      run({"openssl", "req", "-new", "-key", scratch + "/fw2.key", "-subj", "/CN=fw2", "-out", request});
  ASSERT_TRUE(requested) << requested.error().message;
  const auto signed_ = run({"openssl", "x509", "-req", "-in", request, "-CA", folder + "/ca.pem", "-CAkey",
                            folder + "/ca.key", "-days", "-1", "-extfile", extensions, "-out", scratch + "/fw2.pem"});
  ASSERT_TRUE(signed_) << signed_.error().message;
}

class RefusedCertificate : public RefusalTest, public ::testing::WithParamInterface<Certificate> {};

void PrintTo(const Certificate& certificate, std::ostream* out) { *out << certificate.name; }

TEST_P(RefusedCertificate, IsNamedAtBothEnds) {
  begin();
  const std::string folder = lab().folder() + "/pki", scratch = lab().folder() + "/other-pki";
  GetParam().make(folder, scratch);
  const auto replace = [&](const std::string& from, const std::string& to) {
    for (const char* file : {"/fw2.pem", "/fw2.key"}) {
      fs::remove(to + file);
      fs::copy_file(from + file, to + file);
    }
  };
  const std::string good = lab().folder() + "/good-pki";
  fs::create_directory(good);
  replace(folder, good);
  replace(scratch, folder);
  ASSERT_TRUE(lab().kill_daemon("som1", SIGKILL));
  ASSERT_TRUE(lab().start_daemon("som1"));  // whoever dials now reads his files again

  EXPECT_TRUE(is_logged("fw2", GetParam().agent_says));
  if (!GetParam().master_logs.empty()) {
    EXPECT_TRUE(is_logged("som1", GetParam().master_logs));
  }
  const auto status = ask_status("sami-soa", lab().daemon("fw2")->control_socket);
  ASSERT_TRUE(status);
  EXPECT_FALSE(status->connected);
  EXPECT_THAT(status->last_error, HasSubstr(GetParam().agent_says));

  replace(good, folder);
  ASSERT_TRUE(wait_until_connected(lab()));
  descriptors_ = descriptors();
  expect_unharmed();
}

INSTANTIATE_TEST_SUITE_P(EveryFault, RefusedCertificate,
                         ::testing::Values(Certificate{"ForeignAuthority", make_foreign, "does not hold against", ""},
                                           Certificate{"WrongRole", make_of_a_tde, "role", "tde/fw2"},
                                           Certificate{"Expired", make_expired, "expired", ""}),
                         [](const auto& tested) { return tested.param.name; });

// ---- whoever reaches the port

struct Handshake {
  std::string name;
  MakeCertificate make;                // none: without one
  std::vector<std::string> arguments;  // of openssl s_client
  std::string master_logs;
};

class RefusedHandshake : public RefusalTest, public ::testing::WithParamInterface<Handshake> {};

void PrintTo(const Handshake& handshake, std::ostream* out) { *out << handshake.name; }

void make_good(const std::string& folder, const std::string& scratch) { fs::copy(folder, scratch); }

// gRPC sends no alert: who is refused sees the connection end.
TEST_P(RefusedHandshake, IsLoggedWithTheReason) {
  begin();
  const std::string folder = lab().folder() + "/pki", scratch = lab().folder() + "/other-pki";
  std::vector<std::string> line{"openssl", "s_client",         "-connect", std::string(usecase1::kSomAddress) + ":7500",
                                "-CAfile", folder + "/ca.pem", "-alpn",    "h2",
                                "-ign_eof"};
  if (GetParam().make) {
    GetParam().make(folder, scratch);
    line.insert(line.end(), {"-cert", scratch + "/fw2.pem", "-key", scratch + "/fw2.key"});
  }
  line.insert(line.end(), GetParam().arguments.begin(), GetParam().arguments.end());
  RunOptions options;
  options.network_namespace = lab().namespace_of("fw2");
  options.ignore_status = true;
  const auto client = run(line, options);
  ASSERT_TRUE(client) << client.error().message;
  EXPECT_NE(client->status, 0);
  EXPECT_THAT(client->error_output, HasSubstr("unexpected eof while reading"));
  EXPECT_TRUE(is_logged("som1", kRefused));
  EXPECT_TRUE(is_logged("som1", GetParam().master_logs));
  expect_unharmed();
}

INSTANTIATE_TEST_SUITE_P(EveryFault, RefusedHandshake,
                         ::testing::Values(Handshake{"NoCertificate", nullptr, {}, "peer did not return a certificate"},
                                           Handshake{"ForeignAuthority", make_foreign, {}, "certificate verify failed"},
                                           Handshake{"Expired", make_expired, {}, "certificate verify failed"},
                                           Handshake{"Tls12", make_good, {"-tls1_2"}, "no shared cipher"}),
                         [](const auto& tested) { return tested.param.name; });

TEST_F(RefusalTest, GarbageOnThePort) {
  begin();
  const auto binary = Stranger::to_master(lab());
  const auto http = Stranger::to_master(lab());
  EXPECT_TRUE(binary.send(std::string(5000, '\xff')));
  EXPECT_TRUE(http.send("GET / HTTP/1.1\r\nHost: som1\r\n\r\n"));
  EXPECT_TRUE(poll_until(kPatience, [&] { return binary.is_closed() && http.is_closed(); }));
  EXPECT_TRUE(is_logged("som1", kRefused));
  expect_unharmed();
}

TEST_F(RefusalTest, GarbageOnTheControlSockets) {
  begin();
  for (const auto& daemon : lab().state().daemons) {
    const auto stranger = Stranger::to_socket(daemon.control_socket);
    EXPECT_TRUE(stranger.send(std::string(5000, '\xff')));
    EXPECT_TRUE(poll_until(kPatience, [&] { return stranger.is_closed(); })) << daemon.name;
  }
  expect_unharmed();
}

// One that only connects, and one with a valid certificate that opens its session and then says nothing.
TEST_F(RefusalTest, Silence) {
  begin();
  const auto silent = Stranger::to_master(lab());
  ASSERT_TRUE(lab().kill_daemon("fw2", SIGKILL));
  {
    auto rogue =
        Conversation::start({lab().binaries() + "/sami-rogue-agent", std::string(usecase1::kSomAddress) + ":7500",
                             lab().folder() + "/pki", "fw2", "fw2", "silent"},
                            lab().namespace_of("fw2"));
    ASSERT_TRUE(rogue) << rogue.error().message;
    ASSERT_EQ(rogue->hear(kPatience).value_or(""), "connected");
    EXPECT_THAT(rogue->hear(kPatience).value_or(""), HasSubstr("no message came"));
  }
  EXPECT_TRUE(is_logged("som1", "no message came within 10000 ms: expected Authorize"));
  EXPECT_TRUE(poll_until(kPatience, [&] { return silent.is_closed(); }));
  EXPECT_TRUE(is_logged("som1", "Handshake timed out"));
  ASSERT_TRUE(lab().start_daemon("fw2"));
  expect_unharmed();
}

// ---- more connections than the process may have

// Who is there stays, who comes is refused, and when there is room again everything is as before.
TEST_F(RefusalTest, MoreConnectionsThanDescriptors) {
  begin();
  const pid_t master = lab().daemon("som1")->process.pid;
  rlimit before{};
  ASSERT_EQ(::prlimit(master, RLIMIT_NOFILE, nullptr, &before), 0);
  const rlimit few{64, before.rlim_max};
  ASSERT_EQ(::prlimit(master, RLIMIT_NOFILE, &few, nullptr), 0);
  {
    std::vector<Stranger> crowd;
    for (int i = 0; i < 30; ++i) crowd.push_back(Stranger::to_master(lab()));
    const auto refused = [&](const Stranger& stranger) { return stranger.is_closed(); };
    EXPECT_TRUE(poll_until(std::chrono::seconds(8), [&] {  // a handshake that does not come is waited for longer
      return std::all_of(crowd.begin(), crowd.end(), refused);
    }));
  }
  for (const char* name : {"fw1", "fw2", "tde1"}) {
    const auto daemon = lab().daemon(name);
    EXPECT_TRUE(ask_status(daemon->program, daemon->control_socket)->connected) << name;
  }
  ASSERT_EQ(::prlimit(master, RLIMIT_NOFILE, &before, nullptr), 0);
  expect_unharmed();
}

}  // namespace
}  // namespace sami::lab
