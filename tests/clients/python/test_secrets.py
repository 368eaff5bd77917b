"""Values of secrets are sent, and appear in no response, representation, error or log."""

import logging
import traceback
from datetime import datetime

import grpc
import pytest

import sandpool
from sandpool import SandboxClient, Secret
from sandpool._core import sandboxes, secrets
from sandpool._core.processes import ProcessDraft
from sandpool._core.sandboxes import SandboxDraft
from tests.clients.python.state import Failure, State

VALUE = "hush-\N{SNOWMAN}-0123456789"
HALF = VALUE + "\ud800"
"""Ends in a lone surrogate: a string in Python that cannot be encoded."""


def test_creates_reads_updates_and_deletes_secrets(client: SandboxClient, state: State):
    made = client.create_secret("TOKEN", VALUE)
    assert made == Secret("TOKEN", datetime.fromisoformat("2026-11-22T10:00:00+00:00"), None)
    assert state.values == {"TOKEN": VALUE}
    assert client.get_secret("TOKEN") == made
    changed = client.update_secret("TOKEN", "other")
    assert changed.update_time == datetime.fromisoformat("2026-11-22T11:00:00+00:00")
    assert state.values == {"TOKEN": "other"}
    for name in ("C", "A", "B"):
        client.create_secret(name, "x")
    assert [secret.name for secret in client.list_secrets(page_size=2)] == ["A", "B", "C", "TOKEN"]
    client.delete_secret("TOKEN")
    client.delete_secret("A", force=True)
    assert [request.force for request in state.sent("DeleteSecret")] == [False, True]
    with pytest.raises(sandpool.SecretNotFoundError):
        client.update_secret("TOKEN", VALUE)


def test_a_value_appears_nowhere(client: SandboxClient, state: State, caplog: pytest.LogCaptureFixture):
    shown = [repr(client.create_secret("TOKEN", VALUE)), repr(list(client.list_secrets())), repr(client)]
    shown.append(repr(secrets.create_secret("TOKEN", VALUE, None, None)))
    shown.append(repr(secrets.update_secret("TOKEN", VALUE, None, None)))
    with caplog.at_level(logging.DEBUG):
        for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS):
            state.fail("CreateSecret", Failure(code, "no"))
            with pytest.raises(sandpool.SandpoolError) as caught:
                client.create_secret("TOKEN", VALUE)
            shown += everything_about(caught.value)
    assert VALUE not in "".join(shown) + caplog.text


def test_an_environment_appears_in_no_error(client: SandboxClient, state: State):
    env = {"TOKEN": VALUE}
    draft = SandboxDraft("p", None, None, {"env": env})
    shown = [repr(draft), repr(sandboxes.create_sandbox(draft)), repr(ProcessDraft("x", env=env))]
    state.fail("CreateSandbox", Failure(grpc.StatusCode.INTERNAL, "no"))
    with pytest.raises(sandpool.ServerError) as caught:
        client.create(pool_id="p", env=env)
    shown += everything_about(caught.value)
    with pytest.raises(TypeError) as mixed:
        client.create_pool(template_name="t", env=env)
    shown += everything_about(mixed.value)
    assert VALUE not in "".join(shown)


@pytest.mark.parametrize(("value", "kind"), [(HALF, ValueError), (VALUE.encode(), TypeError)])
def test_rejects_a_value_that_is_not_text_without_showing_it(client: SandboxClient, state: State, value, kind):
    calls = [
        lambda: client.create_secret("TOKEN", value),
        lambda: client.update_secret("TOKEN", value),
        lambda: client.create(pool_id="p", env={"TOKEN": value}),
        lambda: client.update_pool("p", env={"TOKEN": value}),
        lambda: client.create_template("t", image="i", env={"TOKEN": value}),
    ]
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        assert "hush" not in "".join(everything_about(caught.value))
    assert state.requests == []


def everything_about(error: BaseException) -> list[str]:
    """Everything that a program might print or log of an error, including its causes."""
    found = [repr(error), str(error), repr(vars(error)), "".join(traceback.format_exception(error))]
    for other in (error.__cause__, error.__context__):
        if other is not None:
            found += [repr(other), str(other), repr(other.args)]
    return found
