// Findings and class verdicts: making, bounding and merging them. Pure.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <string>
#include <string_view>

#include "interfaces/common/common.pb.h"

namespace sami::protocol {

using ClassFeedbacks = google::protobuf::RepeatedPtrField<common::v1::ClassFeedback>;

// Detail is cut at 512 octets.
common::v1::Finding make_finding(common::v1::FindingCode code, std::string_view detail, std::uint64_t records = 0);
common::v1::ClassFeedback failed_class(const std::string& state_class, common::v1::FindingCode code,
                                       std::string_view detail);
// At most 32 findings; more are dropped.
void add_finding(common::v1::ClassFeedback& feedback, common::v1::Finding finding);
// The newest word on a class replaces what was said of it before. At most 64 classes are kept.
void merge_feedback(ClassFeedbacks& into, const ClassFeedbacks& news);
// "FINDING_FOREIGN" as "FOREIGN".
std::string_view name_of(common::v1::FindingCode code);
// "connection_tracking: 3 records FOREIGN: detail; ..."
std::string sentence(const common::v1::ClassFeedback& feedback);

}  // namespace sami::protocol
