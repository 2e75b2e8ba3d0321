#include "cli/output.h"
#include "cli/run.h"
#include "interfaces/transport/pki.h"

namespace sami::cli {
namespace {

ExitCode report_error(std::ostream& err, const Error& error) {
  return report(err, {error.kind == ErrorKind::InvalidInput ? ExitCode::Usage : ExitCode::Failed, error.message});
}

void print_files(std::ostream& out, const pki::Files& files) { out << files.certificate << "\n" << files.key << "\n"; }

}  // namespace

ExitCode run_pki(const command::PkiInit& command, std::ostream& out, std::ostream& err) {
  const auto files = pki::make_authority(command.folder, command.domain);
  if (!files) return report_error(err, files.error());
  print_files(out, *files);
  return ExitCode::Done;
}

ExitCode run_pki(const command::PkiIssue& command, std::ostream& out, std::ostream& err) {
  const auto files = pki::issue(command.folder, command.role, command.name, command.days, command.hosts);
  if (!files) return report_error(err, files.error());
  print_files(out, *files);
  return ExitCode::Done;
}

ExitCode run_pki(const command::PkiShow& command, std::ostream& out, std::ostream& err) {
  const auto certificate = pki::read_certificate(command.file);
  if (!certificate) return report_error(err, certificate.error());
  out << certificate->identity.uri() << "\n";
  out << "valid " << wall_time(certificate->not_before) << " to " << wall_time(certificate->not_after) << "\n";
  out << "issued by " << certificate->issuer << "\n";
  for (const auto& host : certificate->hosts) out << "reached at " << host << "\n";
  return ExitCode::Done;
}

}  // namespace sami::cli
