"""SecretService: calls of the use cases and responses. Responses, errors and logs contain no values."""

import base64

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs

from sandpool.v1 import secret_pb2
from sandpool.v1 import secret_service_pb2 as k
from sandpool_server.domain.errors import Unavailable
from sandpool_server.rpc.fingerprints import fingerprint_of
from tests.rpc.conftest import Rig, refused
from tests.support.fake_usecases import NOW

STAMP = Timestamp(seconds=int(NOW.timestamp()), nanos=890_123_000)


async def test_creates_updates_lists_and_deletes_secrets(rig: Rig) -> None:
    response = await rig.secrets.CreateSecret(k.CreateSecretRequest(name="KEY", value="hush", request_id="r"))
    name, value, request_id, fingerprint = rig.fakes.faults.last
    assert (name, value, request_id, len(fingerprint)) == ("KEY", "hush", "r", 32)
    assert response.secret == secret_pb2.Secret(name="KEY", create_time=STAMP, update_time=STAMP)
    response = await rig.secrets.UpdateSecret(k.UpdateSecretRequest(name="KEY", value="hush2"))
    assert rig.fakes.faults.last == ("KEY", "hush2", "", "")
    later = Timestamp(seconds=STAMP.seconds + 1, nanos=STAMP.nanos)
    assert response.secret == secret_pb2.Secret(name="KEY", create_time=STAMP, update_time=later)
    await rig.secrets.CreateSecret(k.CreateSecretRequest(name="OTHER", value="hush"))
    listed = await rig.secrets.ListSecrets(k.ListSecretsRequest())
    assert [secret.name for secret in listed.secrets] == ["KEY", "OTHER"]
    await rig.secrets.DeleteSecret(k.DeleteSecretRequest(name="KEY"))
    assert rig.fakes.faults.last == ("KEY", False, "", "")
    await rig.secrets.DeleteSecret(k.DeleteSecretRequest(name="OTHER", force=True, request_id="r"))
    assert rig.fakes.faults.last[:3] == ("OTHER", True, "r")
    assert not rig.fakes.secrets.stored


async def test_rejects_existing_and_missing_secrets(rig: Rig) -> None:
    await rig.secrets.CreateSecret(k.CreateSecretRequest(name="KEY", value="hush"))
    existing = await refused(rig.secrets.CreateSecret(k.CreateSecretRequest(name="KEY", value="hush2")))
    assert (existing.code, existing.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SECRET_ALREADY_EXISTS")
    for call in (
        rig.secrets.UpdateSecret(k.UpdateSecretRequest(name="ABSENT", value="hush")),
        rig.secrets.DeleteSecret(k.DeleteSecretRequest(name="ABSENT")),
    ):
        missing = await refused(call)
        assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "SECRET_NOT_FOUND")
    assert rig.fakes.secrets.values == {"KEY": "hush"}


async def test_pages_of_secrets_continue_after_last_name(rig: Rig) -> None:
    names = ["A", "_b", "z" * 128]
    for name in names:
        await rig.secrets.CreateSecret(k.CreateSecretRequest(name=name, value="hush"))
    seen, token = [], ""
    for _ in names:
        page = await rig.secrets.ListSecrets(k.ListSecretsRequest(page_size=1, page_token=token))
        seen += [secret.name for secret in page.secrets]
        assert rig.fakes.faults.last == (2, seen[-2] if len(seen) > 1 else "")
        token = page.next_page_token
        if token:
            version, _, name = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().split(":")
            assert (version, name) == ("1", seen[-1])
    assert (seen, token) == (names, "")


def test_fingerprint_omits_hidden_fields() -> None:
    one = k.CreateSecretRequest(name="KEY", value="1234", request_id="r")
    other = k.CreateSecretRequest(name="KEY", value="4321", request_id="r")
    assert fingerprint_of(one, "r", ("value",)) == fingerprint_of(other, "r", ("value",))
    assert fingerprint_of(one, "r", ("value",)) != fingerprint_of(one, "r")
    other.name = "OTHER"
    assert fingerprint_of(one, "r", ("value",)) != fingerprint_of(other, "r", ("value",))
    assert one.value == "1234"


async def test_fingerprint_does_not_depend_on_value_of_secret(rig: Rig) -> None:
    fingerprints: dict[str, set[str]] = {"secrets.create": set(), "secrets.update": set()}
    for value in ("1234", "4321"):
        rig.fakes.secrets.stored.clear()
        await rig.secrets.CreateSecret(k.CreateSecretRequest(name="KEY", value=value, request_id="r"))
        await rig.secrets.UpdateSecret(k.UpdateSecretRequest(name="KEY", value=value, request_id="r"))
    for call, (*_, fingerprint) in rig.fakes.faults.calls:
        fingerprints[call].add(fingerprint)
    assert [len(found) for found in fingerprints.values()] == [1, 1]
    assert all(len(fingerprint) == 32 for found in fingerprints.values() for fingerprint in found)


@pytest.mark.parametrize("value", ["", "hush\0hush", "hush" * 20_000], ids=["empty", "nul", "long"])
async def test_errors_and_logs_do_not_contain_invalid_value(rig: Rig, value: str) -> None:
    with capture_logs() as logs:
        for call, kind in (
            (rig.secrets.CreateSecret, k.CreateSecretRequest),
            (rig.secrets.UpdateSecret, k.UpdateSecretRequest),
        ):
            invalid = await refused(call(kind(name="KEY", value=value)))
            assert invalid.fields == ["value"]
            swapped = await refused(call(kind(name="hush-hush", value="KEY")))
            assert swapped.fields == ["name"]
            assert "hush" not in f"{invalid} {swapped}"
    assert len(logs) == 4
    assert "hush" not in str(logs)


async def test_responses_errors_and_logs_do_not_contain_value(rig: Rig) -> None:
    create = k.CreateSecretRequest(name="KEY", value="hush", request_id="r")
    update = k.UpdateSecretRequest(name="KEY", value="hush", request_id="r")
    with capture_logs() as logs:
        outcomes = [await rig.secrets.CreateSecret(create), await rig.secrets.UpdateSecret(update)]
        outcomes += [
            await rig.secrets.ListSecrets(k.ListSecretsRequest()),
            await refused(rig.secrets.CreateSecret(create)),
        ]
        for error in (Unavailable("DATABASE_UNAVAILABLE", "unreachable"), RuntimeError("a bug")):
            rig.fakes.faults.error = error
            outcomes.append(await refused(rig.secrets.UpdateSecret(update)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.raw("SecretService/CreateSecret", b"\x0a\x03KEY\x12\x06hush\xc3\x28")
    assert "hush" not in f"{outcomes} {caught.value!r} {caught.value.trailing_metadata()}"
    assert [line["name"] for line in logs if line.get("request_id") == "r"] == ["KEY"] * 5
    assert "hush" not in str(logs)
