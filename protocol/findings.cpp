#include "protocol/findings.h"

#include <fmt/format.h>

namespace sami::protocol {

namespace {
constexpr std::size_t maximum_detail = 512;
constexpr int maximum_findings = 32;
constexpr int maximum_classes = 64;
}  // namespace

common::v1::Finding make_finding(common::v1::FindingCode code, std::string_view detail, std::uint64_t records) {
  common::v1::Finding finding;
  finding.set_code(code);
  finding.set_detail(std::string(detail.substr(0, maximum_detail)));
  finding.set_records(records);
  return finding;
}

common::v1::ClassFeedback failed_class(const std::string& state_class, common::v1::FindingCode code,
                                       std::string_view detail) {
  common::v1::ClassFeedback feedback;
  feedback.set_state_class(state_class);
  feedback.set_result(common::v1::CLASS_RESULT_FAILED);
  add_finding(feedback, make_finding(code, detail));
  return feedback;
}

void add_finding(common::v1::ClassFeedback& feedback, common::v1::Finding finding) {
  if (feedback.findings_size() < maximum_findings) *feedback.add_findings() = std::move(finding);
}

void merge_feedback(ClassFeedbacks& into, const ClassFeedbacks& news) {
  for (const auto& item : news) {
    common::v1::ClassFeedback* known = nullptr;
    for (auto& old : into) {
      if (old.state_class() == item.state_class()) known = &old;
    }
    if (known == nullptr && into.size() < maximum_classes) known = into.Add();
    if (known == nullptr) continue;
    *known = item;
    while (known->findings_size() > maximum_findings) known->mutable_findings()->RemoveLast();
  }
}

std::string_view name_of(common::v1::FindingCode code) {
  constexpr std::string_view prefix = "FINDING_";
  std::string_view name = common::v1::FindingCode_Name(code);
  return name.starts_with(prefix) ? name.substr(prefix.size()) : std::string_view("unknown finding");
}

std::string sentence(const common::v1::ClassFeedback& feedback) {
  std::string text = feedback.state_class().empty() ? "the transfer" : feedback.state_class();
  const char* separator = ": ";
  for (const auto& finding : feedback.findings()) {
    text += separator;
    if (finding.records() > 0) text += fmt::format("{} records ", finding.records());
    text += name_of(finding.code());
    if (!finding.detail().empty()) text += fmt::format(" ({})", finding.detail());
    separator = "; ";
  }
  return text;
}

}  // namespace sami::protocol
