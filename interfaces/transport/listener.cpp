#include "interfaces/transport/listener.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "runtime/config.h"
#include "runtime/file.h"

namespace sami::transport {
namespace {

constexpr rlim_t reserved_descriptors = 64;
constexpr rlim_t fewest_descriptors = 128;
constexpr int retry_milliseconds = 100;

class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor() { if (number_ >= 0) close(number_); }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  int get() const { return number_; }

 private:
  int number_;
};

tl::unexpected<Error> failed(const std::string& what) {
  const int error = errno;
  return failure(ErrorKind::Failed, fmt::format("cannot {}: {}", what, std::strerror(error)), error);
}

class AcceptingThread : public Listener {
 public:
  AcceptingThread(std::vector<Descriptor> listeners, int port, Descriptor lock, std::string path)
      : listeners_(std::move(listeners)), port_(port), lock_(std::move(lock)), path_(std::move(path)),
        wakeup_(eventfd(0, EFD_CLOEXEC)) {}

  ~AcceptingThread() override {
    if (thread_.joinable()) {
      eventfd_write(wakeup_.get(), 1);
      thread_.join();
    }
    if (!path_.empty()) unlink(path_.c_str());
  }

  int port() const override { return port_; }

  void start(std::function<void(int, int)> accepted, std::function<void()> turned_away) override {
    accepted_ = std::move(accepted);
    turned_away_ = std::move(turned_away);
    thread_ = std::thread([this] { run(); });
  }

 private:
  void run() {
    std::vector<pollfd> waiting = {{wakeup_.get(), POLLIN, 0}};
    for (const Descriptor& listener : listeners_) waiting.push_back({listener.get(), POLLIN, 0});
    bool exhausted = false;
    while (true) {
      // Exhausted: the listeners would be readable all the time, so only the wakeup is looked at for a while.
      const int ready = poll(waiting.data(), exhausted ? 1 : waiting.size(), exhausted ? retry_milliseconds : -1);
      if (ready < 0 && errno != EINTR) return;
      if (ready > 0 && waiting[0].revents != 0) return;
      exhausted = false;
      for (std::size_t i = 1; i < waiting.size(); ++i) exhausted = !accept_all(waiting[i].fd) || exhausted;
    }
  }

  // False: descriptors or memory have run out.
  bool accept_all(int listener) {
    while (true) {
      const int connection = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (connection < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
      if (connection < 0) {
        const bool exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
        if (exhausted) turned_away_();
        return !exhausted;
      }
      rlimit limit = {};
      getrlimit(RLIMIT_NOFILE, &limit);
      if (static_cast<rlim_t>(connection) + reserved_descriptors >= limit.rlim_cur) {
        close(connection);
        turned_away_();
        return false;
      }
      const int on = 1;
      setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // fails on Unix sockets, which need none
      accepted_(listener, connection);
    }
  }

  std::vector<Descriptor> listeners_;
  const int port_;
  const Descriptor lock_;
  const std::string path_;
  const Descriptor wakeup_;
  std::function<void(int, int)> accepted_;
  std::function<void()> turned_away_;
  std::thread thread_;
};

Result<void> check_descriptors() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= fewest_descriptors) return {};
  return failure(ErrorKind::InvalidInput,
                 fmt::format("this process may open {} descriptors, expected at least {} (ulimit -n, LimitNOFILE=)",
                             limit.rlim_cur, fewest_descriptors));
}

struct AddressList {
  addrinfo* first = nullptr;
  ~AddressList() { if (first != nullptr) freeaddrinfo(first); }
};

Result<Descriptor> listen_at(const addrinfo& address, const std::string& endpoint) {
  Descriptor listener(socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (listener.get() < 0) return failed("make a socket for " + endpoint);
  const int on = 1;
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.ai_family == AF_INET6) setsockopt(listener.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind(listener.get(), address.ai_addr, address.ai_addrlen) != 0 || ::listen(listener.get(), SOMAXCONN) != 0)
    return failed("listen on " + endpoint);
  return listener;
}

int port_of(const Descriptor& listener) {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

void set_port(sockaddr& address, int port) {
  const std::uint16_t value = htons(static_cast<std::uint16_t>(port));
  if (address.sa_family == AF_INET6) reinterpret_cast<sockaddr_in6&>(address).sin6_port = value;
  else reinterpret_cast<sockaddr_in&>(address).sin_port = value;
}

Result<Descriptor> lock_socket(const std::string& path) {
  const std::string lock_path = path + ".lock";
  Descriptor lock(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (lock.get() < 0) return failed("open " + lock_path);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    return failure(ErrorKind::InvalidInput, path + " belongs to a daemon that runs: expected to be the only one");
  return lock;
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::on_port(const std::string& endpoint) {
  if (auto good = check_endpoint(endpoint, true); !good) return tl::unexpected(good.error());
  if (auto enough = check_descriptors(); !enough) return tl::unexpected(enough.error());
  const std::size_t colon = endpoint.rfind(':');
  std::string host = endpoint.substr(0, colon);
  if (host.front() == '[') host = host.substr(1, host.size() - 2);
  const addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
                          .ai_protocol = 0, .ai_addrlen = 0, .ai_addr = nullptr, .ai_canonname = nullptr,
                          .ai_next = nullptr};
  AddressList addresses;
  const int code = getaddrinfo(host.c_str(), endpoint.substr(colon + 1).c_str(), &hints, &addresses.first);
  if (code != 0)
    return failure(ErrorKind::InvalidInput, fmt::format("cannot listen on {}: {}", endpoint, gai_strerror(code)));
  std::vector<Descriptor> listeners;
  int port = 0;
  for (const addrinfo* address = addresses.first; address != nullptr; address = address->ai_next) {
    if (port != 0) set_port(*address->ai_addr, port);  // all addresses of the host get the same one
    auto listener = listen_at(*address, endpoint);
    if (!listener) return tl::unexpected(listener.error());
    port = port_of(*listener);
    listeners.push_back(std::move(*listener));
  }
  return std::make_unique<AcceptingThread>(std::move(listeners), port, Descriptor(), "");
}

Result<std::unique_ptr<Listener>> Listener::on_socket(const std::string& path) {
  if (auto enough = check_descriptors(); !enough) return tl::unexpected(enough.error());
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.front() != '/' || path.size() >= sizeof address.sun_path) {
    return failure(ErrorKind::InvalidInput, fmt::format("socket \"{}\": expected an absolute path of at most {} octets",
                                                        path, sizeof address.sun_path - 1));
  }
  path.copy(address.sun_path, path.size());
  struct stat status = {};
  const std::string folder = path.substr(0, path.rfind('/') == 0 ? 1 : path.rfind('/'));
  if (stat(folder.c_str(), &status) != 0) {
    if (auto made = make_private_folder(folder); !made) return tl::unexpected(made.error());
  }
  auto lock = lock_socket(path);
  if (!lock) return tl::unexpected(lock.error());
  if (lstat(path.c_str(), &status) == 0) {
    if (!S_ISSOCK(status.st_mode)) return failure(ErrorKind::InvalidInput, path + " is there and is not a socket");
    unlink(path.c_str());
  }
  Descriptor listener(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  // Nobody can connect before listen(), so the mode is right from the start.
  if (listener.get() < 0 || bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      chmod(path.c_str(), 0600) != 0 || ::listen(listener.get(), SOMAXCONN) != 0)
    return failed("listen on " + path);
  std::vector<Descriptor> listeners;
  listeners.push_back(std::move(listener));
  return std::make_unique<AcceptingThread>(std::move(listeners), 0, std::move(*lock), path);
}

}  // namespace sami::transport
