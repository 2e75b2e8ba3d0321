# cmake -DOBJECT=reader.bpf.o -DNAME=reader_object -DOUTPUT=reader_object.cpp -P embed.cmake: the object's octets as C++.
file(READ ${OBJECT} octets HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," octets "${octets}")
if(octets STREQUAL "")
  set(body "return {};")
else()
  set(body "alignas(8) static constexpr std::uint8_t kObject[] = {${octets}}; return kObject;")
endif()
file(WRITE ${OUTPUT} "#include \"kernel/windows/bpf_object.h\"
std::span<const std::uint8_t> sami::windows::${NAME}() { ${body} }
")
