#include "tde/qemu/qmp.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace sami::tde::qmp {
namespace {

constexpr std::size_t kMaximumPending = 64;

class SocketClient : public Client {
 public:
  SocketClient(std::string path, Loop& loop, ClientOptions options)
      : path_(std::move(path)), loop_(loop), options_(options) {}
  ~SocketClient() override {
    *alive_ = false;
    close();
    loop_.cancel(retry_);
  }
  SocketClient(const SocketClient&) = delete;
  SocketClient& operator=(const SocketClient&) = delete;

  void start(Callbacks callbacks) override {
    callbacks_ = std::move(callbacks);
    later([this] { connect(); });
  }

  void execute(const Command& command, Done done) override {
    if (!connected_) return later([this, done = std::move(done)] { done(tl::unexpected(not_connected())); });
    send(command, std::move(done));
  }

  bool connected() const override { return connected_; }

  void connect_now() override {
    if (socket_ >= 0 || retry_ == 0) return;
    loop_.cancel(retry_);
    retry_ = 0;
    delay_ = options_.first_delay;
    later([this] { connect(); });
  }

 private:
  struct Pending {
    std::uint64_t id = 0;
    Instant deadline;
    Done done;
  };

  // Never from inside the caller, and not after this is gone.
  void later(std::function<void()> task) {
    loop_.post([alive = alive_, task = std::move(task)] {
      if (*alive) task();
    });
  }

  Error not_connected() const { return {ErrorKind::Reconnect, fmt::format("no QEMU answers on {}", path_), 0}; }

  void connect() {
    if (socket_ >= 0) return;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path_.size() >= sizeof address.sun_path) {
      return absent({ErrorKind::InvalidInput, path_ + ": too long for the path of a socket", ENAMETOOLONG});
    }
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    socket_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (socket_ < 0 || ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      const int reason = errno;
      close();
      return absent({ErrorKind::Reconnect, fmt::format("{}: {}", path_, std::strerror(reason)), reason});
    }
    watch_ = loop_.watch(socket_, [this] { read(); });
    greeting_deadline_ = loop_.now() + options_.answer_deadline;
    arm();
  }

  void absent(const Error& reason) {
    retry_ = loop_.call_after(delay_, [this] {
      retry_ = 0;
      connect();
    });
    delay_ = std::min(delay_ * 2, options_.maximum_delay);
    if (!std::exchange(said_absent_, true)) tell(callbacks_.on_disconnected, reason);
  }

  void close() {
    loop_.unwatch(std::exchange(watch_, 0));
    if (socket_ >= 0) ::close(std::exchange(socket_, -1));
    loop_.cancel(std::exchange(timer_, 0));
    connected_ = false;
    input_.clear();
    greeting_deadline_ = Instant::never();
  }

  // Cut off, or no use: what waits for an answer gets none, and it is tried again; at once when QEMU ended it in order.
  void lose(const std::string& reason, bool ended_by_qemu = false) {
    const bool was_connected = connected_ && ended_by_qemu;
    close();
    auto pending = std::move(pending_);
    pending_.clear();
    const Error error{ErrorKind::Reconnect, fmt::format("{}: {}", path_, reason), 0};
    const auto alive = alive_;
    for (auto& one : pending) {
      if (*alive) one.done(tl::unexpected(error));
    }
    if (!*alive) return;
    if (was_connected) {
      connect();
    } else if (socket_ < 0) {
      absent(error);
    }
  }

  void read() {
    std::array<char, 16384> bytes;
    const auto alive = alive_;
    const auto generation = watch_;
    while (*alive && watch_ == generation) {
      const auto count = ::recv(socket_, bytes.data(), bytes.size(), 0);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
      if (count <= 0) return lose(count == 0 ? "QEMU closed the connection" : std::strerror(errno), true);
      take({bytes.data(), static_cast<std::size_t>(count)}, alive, generation);
    }
  }

  void take(std::string_view bytes, const std::shared_ptr<bool>& alive, Loop::WatchId generation) {
    while (!bytes.empty()) {
      const auto end = bytes.find('\n');
      input_ += bytes.substr(0, end);
      if (input_.size() > kMaximumLine) {
        return lose(fmt::format("a line of more than {} octets from QEMU", kMaximumLine));
      }
      if (end == std::string_view::npos) return;
      bytes.remove_prefix(end + 1);
      const std::string line = std::exchange(input_, {});
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      auto message = parse(line);
      if (!message) return lose(message.error().message);
      std::visit([this](const auto& one) { on(one); }, *message);
      if (!*alive || watch_ != generation) return;
    }
  }

  // A copy: the callback may end this object, and with it what it is kept in.
  template <typename Callback, typename Argument>
  static void tell(Callback callback, const Argument& argument) {
    if (callback) callback(argument);
  }

  void on(const Greeting& greeting) {
    if (connected_ || greeting_deadline_ == Instant::never()) return lose("QEMU greets twice");
    greeting_deadline_ = Instant::never();
    send(negotiate(), [this, version = greeting.version](Result<Fields> negotiated) {
      if (!negotiated) {
        if (negotiated.error().kind == ErrorKind::Reconnect) return;
        return lose("QEMU refuses to negotiate: " + negotiated.error().message);
      }
      connected_ = true;
      said_absent_ = false;
      delay_ = options_.first_delay;
      tell(callbacks_.on_connected, version);
    });
  }

  void on(const Event& event) {
    if (connected_) tell(callbacks_.on_event, event);
  }

  void on(const Answer& answer) {
    if (!answer.id) {
      if (!answer.error.empty()) return lose("QEMU could not read a command: " + answer.error);
      return lose("QEMU answers without an id");
    }
    const auto asked =
        std::find_if(pending_.begin(), pending_.end(), [&](const Pending& one) { return one.id == *answer.id; });
    if (asked == pending_.end()) return lose(fmt::format("QEMU answers command {}, which nobody gave", *answer.id));
    const Done done = std::move(asked->done);
    pending_.erase(asked);
    arm();
    if (answer.error_class.empty()) return done(answer.value);
    done(failure(answer.error_class == "CommandNotFound" ? ErrorKind::Unsupported : ErrorKind::Failed, answer.error));
  }

  void send(const Command& command, Done done) {
    if (pending_.size() >= kMaximumPending) {
      return later([done = std::move(done)] { done(failure(ErrorKind::Retry, "QEMU answers too slowly")); });
    }
    const std::string line = encode(next_id_, command);
    pending_.push_back({next_id_++, loop_.now() + options_.answer_deadline, std::move(done)});
    const auto sent = ::send(socket_, line.data(), line.size(), MSG_NOSIGNAL);
    if (sent != static_cast<ssize_t>(line.size())) {
      const std::string reason = sent < 0 ? std::strerror(errno) : "QEMU does not read";
      return later([this, reason, generation = watch_] {
        if (watch_ == generation) lose(reason);
      });
    }
    arm();
  }

  // One timer, for the first thing that is due.
  void arm() {
    Instant first = greeting_deadline_;
    if (!pending_.empty()) first = std::min(first, pending_.front().deadline);
    loop_.cancel(std::exchange(timer_, 0));
    if (first == Instant::never()) return;
    timer_ = loop_.call_at(first, [this] {
      timer_ = 0;
      lose("QEMU does not answer; does another client hold this monitor?");
    });
  }

  std::string path_;
  Loop& loop_;
  ClientOptions options_;
  Callbacks callbacks_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  int socket_ = -1;
  Loop::WatchId watch_ = 0;
  Loop::TimerId timer_ = 0;
  Loop::TimerId retry_ = 0;
  Duration delay_ = options_.first_delay;
  bool connected_ = false;
  bool said_absent_ = false;
  Instant greeting_deadline_ = Instant::never();
  std::string input_;
  std::uint64_t next_id_ = 1;
  std::vector<Pending> pending_;
};

}  // namespace

std::unique_ptr<Client> make_client(std::string path, Loop& loop, ClientOptions options) {
  return std::make_unique<SocketClient>(std::move(path), loop, options);
}

}  // namespace sami::tde::qmp
