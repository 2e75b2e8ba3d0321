// The operator interface's messages as JSON, with addresses and enumerations in words. Keys are stable.
#pragma once

#include <nlohmann/json.hpp>

#include "interfaces/operator/operator.pb.h"

namespace sami::cli {

using Json = nlohmann::ordered_json;

Json to_json(const common::v1::Subject& subject);
Json to_json(const common::v1::Transfer& transfer);
Json to_json(const common::v1::Finding& finding);
Json to_json(const common::v1::ClassFeedback& feedback);
Json to_json(const management::v1::Host& host);
Json to_json(const management::v1::Vm& vm);
Json to_json(const management::v1::Migration& migration);
Json to_json(const management::v1::AuditLine& line);
Json to_json(const management::v1::PlanReply& plan);
Json to_json(const management::v1::TopologyReply& topology);
Json to_json(const management::v1::StatusReply& status);
Json to_json(const management::v1::MoveStatus& move);

}  // namespace sami::cli
