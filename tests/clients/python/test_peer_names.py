"""What docs/peer-apis.md says of the names of other products, against the client."""

import inspect
import re

import pytest

import sandpool
from sandpool import AsyncSandboxClient, SandboxClient, errors
from sandpool._core import quantities
from tests.clients.python.state import State
from tests.support import documents
from tests.support.peer_table import TABLE, named, rows

PYTHON, TYPESCRIPT = "## Python", "## TypeScript"
REFERENCE = documents.folder().parent / "reference" / "peer-apis.md"
CLASSES = (
    *(sandpool.SandboxClient, sandpool.Sandbox, sandpool.CommandHandle, sandpool.CommandResult, sandpool.Tunnel),
    *(sandpool.OutputChunk, sandpool.SandpoolError),
)


def find(name: str) -> object:
    """A public thing of this name, of the client or of one of its classes."""
    for place in (sandpool, *CLASSES):
        if hasattr(place, name):
            return getattr(place, name)
        if name in getattr(place, "__dataclass_fields__", {}):
            return name
    return None


def test_whatever_is_the_same_is_there():
    same = [row for row in rows(PYTHON) if row[1].startswith("same")]
    assert len(same) > 40
    for there, _ in same:
        for name, arguments in named(there):
            thing = find(name)
            assert thing is not None, name
            if callable(thing) and not inspect.isclass(thing):
                parameters = inspect.signature(thing).parameters
                missing = set(arguments) - set(parameters)
                assert not missing, f"{name} lacks {missing}"


def test_whatever_is_left_out_says_why():
    reasons = set(re.findall(r"^- \*\*(.+?)\*\*", TABLE.read_text(), re.MULTILINE))
    assert len(reasons) >= 7
    for there, here in rows(PYTHON) + rows(TYPESCRIPT):
        assert here.startswith(("same", "renamed: ", "left out: ")), there
        for why in re.findall(r"left out: (.+?)(?:;|$)", here):
            assert why in reasons or len(why.split()) > 3, (there, why)


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the list of the other products' names is not beside the clone")
def test_every_name_of_the_other_products_is_in_the_table():
    python = REFERENCE.read_text().partition("## Python")[2].partition("## TypeScript")[0]
    wanted = {name for line in python.splitlines() for name in re.findall(r"^- `(\w+)\(", line)}
    wanted |= {name for name in re.findall(r"`(\w+Error)", python)}  # noqa: C416
    told = {name for there, _ in rows(PYTHON) for name, _ in named(there)}
    assert not wanted - told


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the list of the other products' names is not beside the clone")
def test_every_name_of_typescript_is_in_the_table():
    typescript = REFERENCE.read_text().partition("\n## TypeScript")[2]
    wanted = set(re.findall(r"\b([a-z]+[A-Z]?\w*)\(", typescript)) | set(re.findall(r"\b(\w+Volumes?)\b", typescript))
    for options in re.findall(r"\{([^}]*)\}", typescript):
        wanted |= set(re.findall(r"\w+", options))
    told = {word for there, _ in rows(TYPESCRIPT) for word in re.findall(r"\w+", there)}
    assert not wanted - told - {"seeds", "size"}


def test_who_makes_a_client(address: str, state: State, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SANDPOOL_API_KEY", "environment")
    with SandboxClient.for_localhost(address) as local, SandboxClient.for_cloud("key", address) as cloud:
        local.list_pools()
        cloud.list_pools()
    assert [found.get("authorization") for found in state.metadata] == [None, "Bearer key"]
    monkeypatch.delenv("SANDPOOL_ADDRESS", raising=False)
    assert SandboxClient.for_localhost().address == "127.0.0.1:50051"
    with pytest.raises(ValueError, match="SANDPOOL_ADDRESS"):
        SandboxClient.for_cloud("key")
    monkeypatch.setenv("SANDPOOL_ADDRESS", "https://box.example")
    assert AsyncSandboxClient.for_cloud("key").address == "box.example:443"


def test_one_sandbox_of_a_name(client: SandboxClient, state: State):
    first = client.get_or_create("mine", pool_id="p")
    assert client.get_or_create("mine", image="i").sandbox_id == first.sandbox_id
    assert client.connect("mine").sandbox_id == first.sandbox_id
    assert len(state.sent("CreateSandbox")) == 1
    with client.get_or_create("mine", pool_id="p"):
        pass
    assert client.get_sandbox_status("mine") == "running", "it was there before the block"
    with pytest.raises(TypeError, match="exactly one"):
        client.get_or_create("other")
    assert client.create_and_connect("i").image == "i"


def test_what_is_meant_under_either_name(client: SandboxClient, state: State):
    pool = client.create_pool(name="p", image="i")
    assert client.get_pool(name="p").pool_id == client.get_pool(pool_id="p").pool_id == pool.pool_id
    client.update_pool("p", name="q")
    client.update_pool(name="q", new_name="r")
    client.create_template("t", "i")
    client.update_template(name="t", new_name="u")
    box = client.create(pool_id="r", name="b")
    client.update_sandbox(name="b", new_name="c")
    assert client.update_sandbox(box.sandbox_id, name="d").name == "d"
    assert client.get_sandbox(name="d").sandbox_id == client.wait_for_sandbox(name="d").sandbox_id == box.sandbox_id
    assert client.get_sandbox_status(name="d") == "running"
    client.delete_sandbox(name="d")
    client.delete_pool(name="r", force=True)
    for wrong in (client.get_pool, client.delete_sandbox, client.update_template, client.update_sandbox):
        with pytest.raises(TypeError, match=r"say which is meant: give \w+_(id|name), its identifier or name"):
            wrong()  # type: ignore[operator]
    with pytest.raises(TypeError, match="pool_id and name mean the same"):
        client.get_pool("p", name="p")  # type: ignore[call-overload]


def test_amounts_in_the_words_of_the_template_style(client: SandboxClient, state: State):
    client.create_template("t", "i", cpu="500m", memory="512Mi", storage="2Gi")
    (sent,) = state.sent("CreateTemplate")
    assert (sent.cpus, sent.memory_mb, sent.ephemeral_disk_mb) == (0.5, 512, 2048)
    with pytest.raises(TypeError, match="cpus and cpu mean the same"):
        client.create_template("t", "i", cpus=1, cpu="1")
    assert quantities.cpus("0.25") == 0.25
    assert quantities.cpus(2) == 2
    assert quantities.mebibytes("memory", 1048576) == 1
    for wrong in ("512Mb", "much", "1.5Mi", "-1Gi"):
        with pytest.raises(ValueError, match="memory="):
            quantities.mebibytes("memory", wrong)
    for wrong in ("2x", "m", ""):
        with pytest.raises(ValueError, match="cpu="):
            quantities.cpus(wrong)


def test_errors_under_the_names_of_other_products():
    assert sandpool.ExecutionResult is sandpool.CommandResult
    assert errors.SandboxPending is errors.SandboxNotReadyError
    assert errors.ResourceNameConflictError is errors.ResourceAlreadyExistsError
    assert errors.ResourceTimeoutError("x").last_status == ""
    assert errors.TunnelPortNotAllowedError("x").port == 0
