// How answers look: aligned, stable tables with one line per thing, or JSON. Pure: a value in, text out.
#pragma once

#include <string>
#include <vector>

#include "interfaces/operator/operator.pb.h"

namespace sami::cli {

namespace api = ::sami::management::v1;

// Left-aligned columns separated by two spaces, header in capitals. A cell's newlines become spaces; empty is "-".
std::string render_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows);

std::string wall_time(std::int64_t microseconds);  // "2026-11-21T03:12:45.678Z"
std::string address_text(const std::string& octets);
std::string prefix_text(const common::v1::Prefix& prefix);
std::string selector_text(const common::v1::PeerSelector& selector);  // "any", "10.0.0.0/8 but 10.1.0.0/16"
std::string transfer_text(const common::v1::Transfer& transfer);      // "fw1 -> fw2 (move, peers any)"
std::string class_result_text(const common::v1::ClassFeedback& feedback);
std::string finding_text(const common::v1::Finding& finding);
std::string outcome_text(const api::Migration& migration);

// Each in both forms.
std::string show_hosts(const api::ListHostsReply& reply, bool json);
std::string show_host(const api::Host& host, bool json);
std::string show_vms(const api::ListVmsReply& reply, bool json);
std::string show_vm(const api::Vm& vm, bool json);
std::string show_migrations(const api::ListMigrationsReply& reply, bool json);
std::string show_migration(const api::Migration& migration, bool json);
std::string show_progress(const api::Migration& migration, bool json);  // one line (JSON: one object) per change
std::string show_plan(const api::PlanReply& reply, bool json);
std::string show_topology(const api::TopologyReply& reply, bool json);
std::string show_audit(const api::AuditReply& reply, bool json);
std::string show_status(const api::StatusReply& reply, bool json);
std::string show_move(const api::MoveStatus& move, bool json);

}  // namespace sami::cli
