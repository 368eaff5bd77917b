"""A protoc plugin that makes the gRPC half of the Python stubs, `*_pb2_grpc.py`.

grpcio-tools has that generator only inside its own protoc, not as a plugin that buf could call. So: take the request
that buf sends, hand its descriptors to that protoc, and answer with the files that it wrote.
"""

import sys
import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Answer one request; a failure of the inner protoc becomes the response's error, as the plugin protocol wants."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
        | plugin_pb2.CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS,
        minimum_edition=998,
        maximum_edition=1000,
    )
    with_services = {file.name for file in request.proto_file if file.service}
    wanted = [name for name in request.file_to_generate if name in with_services]
    if not wanted:
        return response
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder, "descriptors.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = Path(folder, "out")
        out.mkdir()
        includes = resources.files("grpc_tools") / "_proto"
        code = protoc.main(
            ["protoc", f"-I{includes}", f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}", *wanted]
        )
        if code:
            response.error = f"the Python gRPC generator ended with code {code}"
            return response
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text())
    return response


if __name__ == "__main__":
    answer = generate(plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(answer.SerializeToString())
