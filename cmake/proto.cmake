# sami_proto(target PROTOS interfaces/x/x.proto ... [LINK targets...]): message code only.
# sami_grpc(target PROTOS ...): service code of those files (compile it in one place: it is slow).
set(SAMI_GENERATED ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${SAMI_GENERATED})

function(sami_proto target)
  cmake_parse_arguments(ARG "" "" "PROTOS;LINK" ${ARGN})
  set(sources)
  foreach(proto ${ARG_PROTOS})
    string(REPLACE ".proto" ".pb.cc" source ${SAMI_GENERATED}/${proto})
    string(REPLACE ".proto" ".pb.h" header ${SAMI_GENERATED}/${proto})
    add_custom_command(OUTPUT ${source} ${header}
      COMMAND protobuf::protoc --proto_path=${CMAKE_SOURCE_DIR} --cpp_out=${SAMI_GENERATED} ${proto}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
      DEPENDS ${CMAKE_SOURCE_DIR}/${proto} VERBATIM)
    list(APPEND sources ${source} ${header})
  endforeach()
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} SYSTEM PUBLIC ${SAMI_GENERATED})
  target_link_libraries(${target} PUBLIC protobuf::libprotobuf ${ARG_LINK})
endfunction()

function(sami_grpc target)
  cmake_parse_arguments(ARG "" "" "PROTOS;LINK" ${ARGN})
  set(sources)
  foreach(proto ${ARG_PROTOS})
    string(REPLACE ".proto" ".grpc.pb.cc" source ${SAMI_GENERATED}/${proto})
    string(REPLACE ".proto" ".grpc.pb.h" header ${SAMI_GENERATED}/${proto})
    add_custom_command(OUTPUT ${source} ${header}
      COMMAND protobuf::protoc --proto_path=${CMAKE_SOURCE_DIR} --grpc_out=${SAMI_GENERATED}
              --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin> ${proto}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
      DEPENDS ${CMAKE_SOURCE_DIR}/${proto} VERBATIM)
    list(APPEND sources ${source} ${header})
  endforeach()
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} SYSTEM PUBLIC ${SAMI_GENERATED})
  target_link_libraries(${target} PUBLIC gRPC::grpc++ ${ARG_LINK})
endfunction()
