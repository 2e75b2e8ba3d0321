// The machine's views as the operator interface words them. Pure.
#pragma once

#include <string>

#include "interfaces/operator/operator.pb.h"
#include "protocol/som.h"

namespace sami::som {

namespace api = ::sami::management::v1;

api::Host view(const protocol::HostView& host);
api::Vm view(const protocol::SubjectView& subject);
api::Migration view(const protocol::journal::Migration& migration);

// "Can I roll back?": "yes: ..." or "no: ...", one sentence that says what would happen and how.
std::string rollback_sentence(const protocol::journal::Migration& migration);
// The furthest that a transfer has come, in a word.
std::string progress_word(const protocol::journal::TransferProgress& transfer);

}  // namespace sami::som
