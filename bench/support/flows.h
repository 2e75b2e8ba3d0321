// Connections without hosts: entries put into the tables of a lab's firewalls, and altered there as traffic would.
//
// Threading: any thread; every call blocks while the kernel works, on a thread of its own in the namespace.
#pragma once

#include <cstddef>
#include <string>

#include "kernel/netlink/conntrack.h"
#include "lab/lab.h"
#include "runtime/result.h"

namespace sami::bench {

// The n-th established TCP connection from `client` (address as in a packet) to `server`; every n has a key of its own.
netlink::ConntrackEntry connection(const std::string& client, const std::string& server, std::size_t n);

// n entries that belong to nobody's VM. Raises net.netfilter.nf_conntrack_max of the machine where it is too low.
Result<void> fill_table(const std::string& network_namespace, std::size_t n);
// n connections of the client with vm3.
Result<void> open_connections(const std::string& network_namespace, const std::string& client, std::size_t n);
// The first n of them change their protocol state, to and fro: each call is one change of each, with its event.
Result<void> change_connections(const std::string& network_namespace, const std::string& client, std::size_t n,
                                bool closing);

}  // namespace sami::bench
