// The guest's only program: echoes what comes to port 7001, TCP (after a first octet that says what is wanted) and UDP.
// Says READY on its standard output when it listens. Static, for an initramfs.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kPort = 7001, kConnections = 4096 };

static char asked[kConnections];  // by descriptor: its first octet has come

static int open_port(int type) {
  const int one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(kPort), .sin_addr.s_addr = INADDR_ANY};
  const int handle = socket(AF_INET, type | SOCK_NONBLOCK, 0);
  setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(handle, (struct sockaddr*)&address, sizeof address) != 0 ||
      (type == SOCK_STREAM && listen(handle, 2048) != 0)) {
    perror("cannot listen");
    exit(1);
  }
  return handle;
}

static void take(int poll, int handle) {
  struct epoll_event wanted = {.events = EPOLLIN, .data.fd = handle};
  epoll_ctl(poll, EPOLL_CTL_ADD, handle, &wanted);
}

static void echo_tcp(int handle) {
  char bytes[65536];
  ssize_t count = read(handle, bytes, sizeof bytes);
  if (count < 0 && errno == EAGAIN) return;
  char* begin = bytes;
  if (count > 0 && !asked[handle]) {
    asked[handle] = 1;
    ++begin;
    --count;
    if (count == 0) return;
  }
  if (count > 0 && write(handle, begin, (size_t)count) == count) return;
  asked[handle] = 0;
  close(handle);
}

static void echo_udp(int handle) {
  char bytes[65536];
  struct sockaddr_in peer;
  socklen_t size = sizeof peer;
  const ssize_t count = recvfrom(handle, bytes, sizeof bytes, 0, (struct sockaddr*)&peer, &size);
  if (count >= 0) sendto(handle, bytes, (size_t)count, 0, (struct sockaddr*)&peer, size);
}

int main(void) {
  const struct rlimit many = {kConnections, kConnections};
  setrlimit(RLIMIT_NOFILE, &many);
  signal(SIGPIPE, SIG_IGN);
  const int tcp = open_port(SOCK_STREAM);
  const int udp = open_port(SOCK_DGRAM);
  const int poll = epoll_create1(0);
  take(poll, tcp);
  take(poll, udp);
  printf("READY\n");
  fflush(stdout);
  for (;;) {
    struct epoll_event ready[64];
    const int count = epoll_wait(poll, ready, 64, -1);
    for (int i = 0; i < count; ++i) {
      const int handle = ready[i].data.fd;
      if (handle == udp) {
        echo_udp(udp);
      } else if (handle != tcp) {
        echo_tcp(handle);
      } else {
        const int one = 1;
        const int connection = accept4(tcp, NULL, NULL, SOCK_NONBLOCK);
        if (connection < 0) continue;
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        take(poll, connection);
      }
    }
  }
}
