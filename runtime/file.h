// Whole files. Blocking. Errors: Failed with errno in system_error, InvalidInput; messages name the path.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "runtime/result.h"

namespace sami {

// Error InvalidInput: longer than max_bytes, or not a regular file.
Result<std::string> read_file(const std::string& path, std::size_t max_bytes);
// As read_file, and InvalidInput unless the file is closed to group and others and owned by this user or root.
Result<std::string> read_private_file(const std::string& path, std::size_t max_bytes);
// Replaces the file as a whole or not at all, durably (fsync of file and folder). mode: permission bits.
Result<void> write_file(const std::string& path, std::string_view content, unsigned mode);
// As write_file; InvalidInput if the path exists, and it is left alone.
Result<void> create_file(const std::string& path, std::string_view content, unsigned mode);
// Makes the folder (mode 0700) and its missing parents (0755); an existing one must not be open to others for writing.
Result<void> make_private_folder(const std::string& path);

}  // namespace sami
