"""Validation with a descriptor set, for a small contract with every kind of rule."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from sandpool.v1 import sandbox_service_pb2
from sandpool_server.domain.errors import InvalidArgument
from sandpool_server.rpc.contract import Contract, public_contract
from sandpool_server.rpc.validation import RequestValidator

ROOT = Path(__file__).resolve().parents[2]
PROTO = """\
syntax = "proto3";
package shop.v1;
import "buf/validate/validate.proto";
import "google/protobuf/duration.proto";

message Spec {
  option (buf.validate.message).cel = {
    id: "spec.cpus" message: "more than one CPU needs an image" expression: "this.cpus <= 1.0 || this.image != ''"
  };
  option (buf.validate.message).cel = {
    id: "spec.probe.command" message: "give a command" expression: "!has(this.probe) || size(this.probe.command) > 0"
  };
  string image = 1;
  double cpus = 2 [(buf.validate.field).double = {gte: 0 lte: 8}];
  map<string, string> env = 3 [(buf.validate.field).map = {
    max_pairs: 2 keys: {string: {min_len: 1}} values: {string: {max_len: 3}}
  }];
  Probe probe = 4;
}
message Probe {
  repeated string command = 1 [(buf.validate.field).repeated = {max_items: 2 items: {string: {min_len: 1}}}];
  google.protobuf.Duration interval = 2 [(buf.validate.field).duration = {gte: {nanos: 1000000} lte: {seconds: 60}}];
}
message CreateRequest {
  option (buf.validate.message).cel = {
    id: "create.spec" message: "give a name or a specification" expression: "this.name == '' || !has(this.spec)"
  };
  string name = 1;
  Spec spec = 2;
  Kind kind = 3 [(buf.validate.field).enum.defined_only = true];
}
enum Kind {
  KIND_UNSPECIFIED = 0;
  KIND_LARGE = 1;
}
message WriteRequest {
  oneof part {
    option (buf.validate.oneof).required = true;
    Target target = 1;
    bytes data = 2 [(buf.validate.field).bytes.max_len = 100000];
  }
}
message Target {
  string path = 1 [(buf.validate.field).string.min_len = 1];
}
message PutRequest {
  option (buf.validate.message).cel = {
    id: "put.more" message: "wrong" expression: "!this.more || this.target.path != '/'"
  };
  Target target = 1 [(buf.validate.field).required = true];
  bytes data = 2 [(buf.validate.field).bytes.max_len = 100000];
  bool more = 3;
  Input input = 4;
}
message Input {
  bytes data = 1 [(buf.validate.field).bytes.max_len = 50000];
  optional int64 offset = 2 [(buf.validate.field).int64 = {gte: 0 lte: 10}];
}
message SignedRequest {
  option (buf.validate.message).cel = {id: "signed.size" message: "wrong" expression: "size(this.data) == this.size"};
  bytes data = 1 [(buf.validate.field).bytes.max_len = 100000];
  int64 size = 2;
}
"""
LARGE = 20_000
"""More bytes than the validator copies."""


class Shop:
    """The contract, its message classes without rules, like those of a client, and a validator."""

    def __init__(self, descriptor_set: bytes) -> None:
        pool = DescriptorPool()
        for file in FileDescriptorSet.FromString(descriptor_set).file:
            pool.AddSerializedFile(file.SerializeToString())
        names = [f"shop.v1.{name}Request" for name in ("Create", "Write", "Put", "Signed")]
        self.create, self.write, self.put, self.signed = (
            GetMessageClass(pool.FindMessageTypeByName(name)) for name in names
        )
        self.validator = RequestValidator(Contract(descriptor_set))
        self.validator.warm([self.create, self.write, self.put, self.signed])

    def violations(self, request: Any) -> dict[str, str]:
        """Return the violations of a request: descriptions by path."""
        try:
            self.validator.check(request)
        except InvalidArgument as error:
            return {violation.field: violation.description for violation in error.violations}
        return {}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    directory = tmp_path_factory.mktemp("shop")
    shutil.copytree(ROOT / "third_party" / "proto", directory, dirs_exist_ok=True)
    (directory / "shop.proto").write_text(PROTO)
    buf = Path(sys.executable).with_name("buf")
    argv = [buf, "build", "--as-file-descriptor-set", "--output", "shop.binpb", "--path", "shop.proto"]
    subprocess.run(argv, cwd=directory, check=True, timeout=60)
    return Shop((directory / "shop.binpb").read_bytes())


def test_reports_full_path_of_nested_field(shop: Shop) -> None:
    request = shop.create(spec={"cpus": 9, "env": {"KEY": "long value"}, "probe": {"command": ["a", ""]}}, kind=7)
    request.spec.probe.interval.FromNanoseconds(999)
    found = shop.violations(request)
    assert set(found) == {
        "kind",
        "spec.cpus",
        'spec.env["KEY"]',
        "spec.probe.command[1]",
        "spec.probe.interval",
    }
    assert found["kind"] == "must be one of KIND_LARGE"


def test_reports_path_at_end_of_message_rule_id(shop: Shop) -> None:
    assert shop.violations(shop.create(spec={"cpus": 2})) == {"spec.cpus": "more than one CPU needs an image"}
    assert shop.violations(shop.create(spec={"probe": {}})) == {"spec.probe.command": "give a command"}
    request = shop.create(name="a", spec={"image": "i"})
    assert shop.violations(request) == {"spec": "give a name or a specification"}


def test_reports_keys_of_nested_maps(shop: Shop) -> None:
    found = shop.violations(shop.create(spec={"env": {"": "a"}}))
    assert list(found) == ['spec.env[""]']
    assert found['spec.env[""]'].startswith("the key must ")


def test_reports_only_lengths_of_oversized_nested_lists(shop: Shop) -> None:
    request = shop.create(spec={"cpus": 9, "env": {"a": "1", "b": "2", "c": "3"}, "probe": {"command": [""] * 3}})
    assert shop.violations(request) == {
        "spec.env": "must have at most 2 entries, not 3",
        "spec.probe.command": "must have at most 2 entries, not 3",
    }


@pytest.mark.parametrize("interval", [0, 999_999, 60_000_000_001, -1])
def test_checks_durations(shop: Shop, interval: int) -> None:
    request = shop.create(spec={})
    assert shop.violations(request) == {}, "an absent interval is valid"
    request.spec.probe.command.append("true")
    request.spec.probe.interval.FromNanoseconds(interval)
    assert list(shop.violations(request)) == ["spec.probe.interval"]
    request.spec.probe.interval.FromNanoseconds(1_000_000)
    assert shop.violations(request) == {}


def test_requires_a_field_of_the_oneof(shop: Shop) -> None:
    assert shop.violations(shop.write()) == {"part": "is required: give one of its kinds"}
    assert list(shop.violations(shop.write(target={}))) == ["target.path"]


@pytest.mark.parametrize("length", [0, 1, LARGE, 100_000])
def test_accepts_bulk_data_up_to_its_length(shop: Shop, length: int) -> None:
    data = bytes(length)
    assert shop.violations(shop.write(data=data)) == {}
    assert shop.violations(shop.put(target={"path": "a"}, data=data, input={"data": data[:50_000]})) == {}


def test_rejects_longer_bulk_data(shop: Shop) -> None:
    data = bytes(100_001)
    wrong = {"data": "must be at most 100000 bytes"}
    assert shop.violations(shop.write(data=data)) == wrong
    assert shop.violations(shop.put(target={"path": "a"}, data=data)) == wrong
    request = shop.put(target={"path": "a"}, data=data[:LARGE], input={"data": data[:50_001]})
    assert shop.violations(request) == {"input.data": "must be at most 50000 bytes"}


def test_checks_other_fields_of_requests_with_bulk_data(shop: Shop) -> None:
    data = bytes(LARGE)
    request = shop.put(target={"path": "/"}, data=data, more=True, input={"data": data, "offset": 11})
    assert set(shop.violations(request)) == {"more", "input.offset"}
    assert shop.violations(shop.put(data=data)) == {"target": "is required"}
    assert list(shop.violations(shop.put(data=data, target={}))) == ["target.path"]
    assert shop.violations(shop.put(data=data, target={"path": "a"}, input={"offset": 0})) == {}


def test_copies_bulk_data_if_a_rule_uses_it(shop: Shop) -> None:
    data = bytes(LARGE)
    assert shop.violations(shop.signed(data=data, size=LARGE)) == {}
    assert shop.violations(shop.signed(data=data, size=1)) == {"size": "wrong"}


def test_finds_bulk_data_fields_of_public_contract() -> None:
    contract = public_contract()
    validator = RequestValidator(contract)
    expected = {"WriteFile": "data", "PutFile": "data", "UploadDirectory": "data", "OpenTunnel": "data"}
    expected |= {"ConnectProcess": "input.data", "WriteProcessInput": "input.data"}
    for name, path in expected.items():
        full_name = f"sandpool.v1.{name}Request"
        validator.warm([contract.message_class(full_name)])
        assert [bulk.path for bulk in validator._rules[full_name].bulk] == [path]


def test_generated_messages_have_no_rules() -> None:
    """One process can import the messages of the client and the server, although their descriptors differ."""
    for name in ("buf/validate/validate.proto", "sandpool/v1/rules.proto"):
        with pytest.raises(KeyError):
            Default().FindFileByName(name)
    request = sandbox_service_pb2.CreateSandboxRequest.DESCRIPTOR
    assert not request.GetOptions().ListFields()
    assert not any(field.GetOptions().ListFields() for field in request.fields)
    ours = public_contract().message_class(request.full_name).DESCRIPTOR
    assert [field.name for field in ours.fields] == [field.name for field in request.fields]
    assert public_contract().message_rules(ours).cel
