#include "som/plan.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace sami::som {
namespace {

using common::v1::Finding;
using common::v1::Transfer;

std::string context_name(const std::string& context) { return context.empty() ? "default" : context; }

std::string address_text(const std::string& octets) {
  char text[INET6_ADDRSTRLEN] = {};
  if (octets.size() == 4) inet_ntop(AF_INET, octets.data(), text, sizeof text);
  if (octets.size() == 16) inet_ntop(AF_INET6, octets.data(), text, sizeof text);
  return text;
}

class Judge {
 public:
  Judge(const common::v1::Subject& subject, const std::vector<common::v1::ClassRequirement>& classes,
        const std::vector<protocol::HostView>& hosts)
      : subject_(subject), classes_(classes), hosts_(hosts) {}

  void transfer(const Transfer& transfer) {
    if (transfer.source_host() == transfer.destination_host() &&
        context_name(transfer.source_context()) == context_name(transfer.destination_context()))
      return;
    const auto* source = connected(transfer.source_host());
    const auto* destination = connected(transfer.destination_host());
    if (source != nullptr) end(*source, transfer.source_context(), "upload");
    if (destination == nullptr) return;
    if (destination->drained)
      add(common::v1::FINDING_BUSY, fmt::format("{} is drained: it takes no new transfers", destination->host));
    end(*destination, transfer.destination_context(), "download");
    if (source != nullptr && source != destination) external_addresses(*source, *destination);
  }

  std::vector<Finding> take() { return std::move(findings_); }

 private:
  const protocol::HostView* connected(const std::string& name) {
    const auto found = std::find_if(hosts_.begin(), hosts_.end(), [&](const auto& host) { return host.host == name; });
    if (found != hosts_.end() && found->connected) return &*found;
    add(common::v1::FINDING_UNREACHABLE, fmt::format("the agent of {} is not connected", name));
    return nullptr;
  }

  void end(const protocol::HostView& host, const std::string& context, const std::string& function) {
    for (const auto& requirement : classes_) {
      const auto& classes = host.profile.classes();
      const auto found = std::find_if(classes.begin(), classes.end(), [&](const auto& each) {
        return each.state_class() == requirement.state_class();
      });
      if (found == classes.end())
        add(common::v1::FINDING_UNSUPPORTED, fmt::format("{} has no class {}{}", host.host, requirement.state_class(),
                                                         requirement.essential() ? "" : " (best effort)"));
      else if (const auto& can = found->functions();
               !can.empty() && std::find(can.begin(), can.end(), function) == can.end())
        add(common::v1::FINDING_UNSUPPORTED,
            fmt::format("{} cannot {} the class {}", host.host, function, requirement.state_class()));
    }
    const auto& contexts = host.profile.contexts();
    const auto found = std::find_if(contexts.begin(), contexts.end(), [&](const auto& each) {
      return context_name(each.name()) == context_name(context);
    });
    if (found == contexts.end()) {
      add(common::v1::FINDING_UNSUPPORTED, fmt::format("{} has no context {}", host.host, context_name(context)));
      return;
    }
    for (const auto& interface : subject_.interfaces())
      if (found->vn_zone().count(interface.vn_name()) == 0)
        add(common::v1::FINDING_UNSUPPORTED, fmt::format("{} does not know the virtual network {} in its context {}",
                                                         host.host, interface.vn_name(), context_name(context)));
  }

  void external_addresses(const protocol::HostView& source, const protocol::HostView& destination) {
    for (const auto& external : source.profile.external_addresses()) {
      if (!external.moves_with_subject()) continue;
      const auto& others = destination.profile.external_addresses();
      const auto found = std::find_if(others.begin(), others.end(),
                                      [&](const auto& other) { return other.address() == external.address(); });
      if (found == others.end())
        add(common::v1::FINDING_MISSING_EXTERNAL_ADDRESS,
            fmt::format("{} translates to {}, which moves with its subject; {} does not have it", source.host,
                        address_text(external.address()), destination.host));
      else if (!found->moves_with_subject())
        add(common::v1::FINDING_SHARED_EXTERNAL_ADDRESS,
            fmt::format("{} moves with its subject at {}, but is shared at {}", address_text(external.address()),
                        source.host, destination.host));
    }
  }

  void add(common::v1::FindingCode code, const std::string& detail) {
    if (!seen_.insert(detail).second) return;
    Finding finding;
    finding.set_code(code);
    finding.set_detail(detail);
    findings_.push_back(std::move(finding));
  }

  const common::v1::Subject& subject_;
  const std::vector<common::v1::ClassRequirement>& classes_;
  const std::vector<protocol::HostView>& hosts_;
  std::vector<Finding> findings_;
  std::set<std::string> seen_;
};

}  // namespace

std::vector<Finding> findings(const common::v1::Subject& subject, const std::vector<Transfer>& transfers,
                              const std::vector<common::v1::ClassRequirement>& classes,
                              const std::vector<protocol::HostView>& hosts) {
  Judge judge(subject, classes, hosts);
  for (const auto& transfer : transfers) judge.transfer(transfer);
  return judge.take();
}

}  // namespace sami::som
