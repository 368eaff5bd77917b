"""The public contract as the server ships it: descriptors with comments and validation rules.

The generated messages of `sandpool.v1` have neither, because they are part of the client. The descriptors here are in
their own pool: protobuf's default pool holds those of the generated messages, and one pool cannot hold two files of one
name. Descriptors of both pools belong together by their full names.
"""

from functools import cache
from importlib import resources
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass


class Contract:
    """The files of one descriptor set, with a pool and message classes made from them."""

    def __init__(self, descriptor_set: bytes) -> None:
        self.pool = DescriptorPool()
        self.files: dict[str, bytes] = {}
        """Each file as a serialized `FileDescriptorProto`, by its name. The pool itself drops the comments."""
        for file in FileDescriptorSet.FromString(descriptor_set).file:
            self.files[file.name] = file.SerializeToString()
            self.pool.AddSerializedFile(self.files[file.name])
        self._options = {
            kind: (self.message_class(f"google.protobuf.{kind.title()}Options"), self._extension(kind))
            for kind in ("message", "oneof", "field")
        }

    def message_class(self, full_name: str) -> type[Message]:
        """Return the message class, whose descriptor has the rules. Raises `KeyError`."""
        return GetMessageClass(self.pool.FindMessageTypeByName(full_name))

    def message_rules(self, message: Descriptor) -> Any:
        """Return the `buf.validate.MessageRules` of a message; empty without any."""
        return self._rules("message", self.pool.FindMessageTypeByName(message.full_name))

    def oneof_rules(self, oneof: OneofDescriptor) -> Any:
        """Return the `buf.validate.OneofRules` of a oneof; empty without any."""
        return self._rules("oneof", self.pool.FindOneofByName(oneof.full_name))

    def field_rules(self, field: FieldDescriptor) -> Any:
        """Return the `buf.validate.FieldRules` of a field; empty without any."""
        return self._rules("field", self.pool.FindFieldByName(field.full_name))

    def _rules(self, kind: str, descriptor: Any) -> Any:
        # GetOptions makes a message of the default pool, which does not know the extension.
        options, extension = self._options[kind]
        return options.FromString(descriptor.GetOptions().SerializeToString()).Extensions[extension]

    def _extension(self, kind: str) -> Any:
        return self.pool.FindExtensionByName(f"buf.validate.{kind}")


@cache
def public_contract() -> Contract:
    """Return the contract of this server. It is read once, which takes some milliseconds."""
    return Contract((resources.files("sandpool_server.gen") / "contract.binpb").read_bytes())
