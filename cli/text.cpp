#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "cli/output.h"

namespace sami::cli {

std::string render_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows) {
  const auto cell = [](std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text.empty() ? std::string("-") : text;
  };
  std::vector<std::size_t> width(header.size());
  for (std::size_t column = 0; column < header.size(); ++column) {
    width[column] = header[column].size();
    for (const auto& row : rows) width[column] = std::max(width[column], cell(row[column]).size());
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (std::size_t column = 0; column < cells.size(); ++column)
      text += column + 1 == cells.size() ? cell(cells[column])
                                         : fmt::format("{:<{}}  ", cell(cells[column]), width[column]);
    out += text + "\n";
  };
  line(header);
  for (const auto& row : rows) line(row);
  return out;
}

std::string wall_time(std::int64_t microseconds) {
  const std::time_t seconds = static_cast<std::time_t>(microseconds / 1'000'000);
  std::tm fields{};
  gmtime_r(&seconds, &fields);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", fields.tm_year + 1900, fields.tm_mon + 1,
                     fields.tm_mday, fields.tm_hour, fields.tm_min, fields.tm_sec, microseconds / 1000 % 1000);
}

std::string address_text(const std::string& octets) {
  char text[INET6_ADDRSTRLEN] = {};
  if (octets.size() == 4) inet_ntop(AF_INET, octets.data(), text, sizeof text);
  if (octets.size() == 16) inet_ntop(AF_INET6, octets.data(), text, sizeof text);
  return *text != '\0' ? text : "invalid";
}

std::string prefix_text(const common::v1::Prefix& prefix) {
  return fmt::format("{}/{}", address_text(prefix.address()), prefix.length());
}

std::string selector_text(const common::v1::PeerSelector& selector) {
  const auto join = [](const auto& prefixes) {
    std::string text;
    for (const auto& prefix : prefixes) text += (text.empty() ? "" : ",") + prefix_text(prefix);
    return text;
  };
  std::string text = selector.include().empty() ? "any" : join(selector.include());
  if (!selector.exclude().empty()) text += " but " + join(selector.exclude());
  return text;
}

std::string transfer_text(const common::v1::Transfer& transfer) {
  const auto place = [](const std::string& host, const std::string& context) {
    return context.empty() || context == "default" ? host : host + "/" + context;
  };
  return fmt::format("{} -> {} ({}, peers {})", place(transfer.source_host(), transfer.source_context()),
                     place(transfer.destination_host(), transfer.destination_context()),
                     transfer.disposition() == common::v1::DISPOSITION_COPY_AND_RETAIN ? "copy and retain" : "move",
                     selector_text(transfer.peers()));
}

std::string class_result_text(const common::v1::ClassFeedback& feedback) {
  switch (feedback.result()) {
    case common::v1::CLASS_RESULT_CARRIED: return "carried";
    case common::v1::CLASS_RESULT_REDUCED_FIDELITY: return "reduced fidelity";
    case common::v1::CLASS_RESULT_FAILED: return "failed";
    default: return "-";
  }
}

std::string finding_text(const common::v1::Finding& finding) {
  std::string name = common::v1::FindingCode_Name(finding.code()).substr(sizeof("FINDING_") - 1);
  std::string text = name + ": " + finding.detail();
  if (finding.records() != 0) text += fmt::format(" ({} records)", finding.records());
  return text;
}

std::string outcome_text(const api::Migration& migration) {
  if (migration.outcome() == "AT_DESTINATION") return migration.destination_place();
  if (migration.outcome() == "AT_SOURCE") return migration.source_place();
  return "";
}

}  // namespace sami::cli
