"""A protoc plugin that generates the gRPC part of the Python stubs, `*_pb2_grpc.py`.

grpcio-tools contains this generator only within its own protoc, not as a plugin that buf can call. This plugin passes
the descriptors of buf's request to that protoc, and returns the generated files.
"""

import sys
import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Return the response to a request. A failure of the inner protoc is the error of the response."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
        | plugin_pb2.CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS,
        minimum_edition=998,
        maximum_edition=1000,
    )
    with_services = {file.name for file in request.proto_file if file.service}
    selected = [name for name in request.file_to_generate if name in with_services]
    if not selected:
        return response
    with tempfile.TemporaryDirectory() as directory:
        descriptors = Path(directory, "descriptors.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = Path(directory, "out")
        out.mkdir()
        includes = resources.files("grpc_tools") / "_proto"
        code = protoc.main(
            ["protoc", f"-I{includes}", f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}", *selected]
        )
        if code:
            response.error = f"the Python gRPC generator exited with code {code}"
            return response
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text())
    return response


if __name__ == "__main__":
    response = generate(plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(response.SerializeToString())
