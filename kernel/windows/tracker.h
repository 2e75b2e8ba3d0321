// What the BPF program (tracker.bpf.c) and the daemon share. Plain C; addresses and ports in network order.
#pragma once

enum { TRACKED_CONNECTIONS = 1 << 16, TRACKED_PLACES = 1 << 14 };

struct tracked_tuple {
  unsigned int source[4], destination[4]; /* IPv4 in the first word */
  unsigned short source_port, destination_port;
};
struct tracked_connection {
  struct tracked_tuple original;
  unsigned short zone;
  unsigned char version; /* 4 or 6 */
  unsigned char unused;
};
struct tracked_place {
  unsigned int address[4];
  unsigned short zone;
  unsigned char version;
  unsigned char unused;
};
struct tracking {
  unsigned int everything; /* whatever the place */
  unsigned int overrun;    /* there was no room for a connection */
};
