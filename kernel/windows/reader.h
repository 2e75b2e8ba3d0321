// What the BPF program (reader.bpf.c) and the daemon share: one slot for each connection that is asked for. Plain C;
// numbers in host order unless said otherwise.
#pragma once

struct window_direction {
  unsigned int end, maximum_end, maximum_window, maximum_acknowledgement; /* td_end, td_maxend, td_maxwin, td_maxack */
  unsigned char scale, flags;
  unsigned short unused;
};

enum { WINDOW_SLOTS = 1024 };
enum { WINDOW_ABSENT = 0, WINDOW_FOUND = 1, WINDOW_OFFLOADED = 2 };

struct window_slot {
  unsigned int source[4], destination[4];       /* network order; IPv4 in the first word */
  unsigned short source_port, destination_port; /* network order */
  unsigned short zone;
  unsigned char version;                /* 4 or 6 */
  unsigned char answer;                 /* WINDOW_* */
  struct window_direction direction[2]; /* original, reply */
};
