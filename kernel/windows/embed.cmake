# cmake -DOBJECT=reader.bpf.o -DOUTPUT=reader_object.cpp -P embed.cmake: the object's octets as a C++ array.
file(READ ${OBJECT} octets HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," octets "${octets}")
if(octets STREQUAL "")
  set(body "return {};")
else()
  set(body "alignas(8) static constexpr std::uint8_t kObject[] = {${octets}}; return kObject;")
endif()
file(WRITE ${OUTPUT} "#include \"kernel/windows/reader_object.h\"
std::span<const std::uint8_t> sami::windows::reader_object() { ${body} }
")
