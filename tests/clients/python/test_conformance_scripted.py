"""The cases of the conformance suite that need no engine, with the Python client, blocking and with asyncio."""

from pathlib import Path

import pytest

from sandpool import AsyncSandboxClient, SandboxClient
from tests.support.conformance import Case, Run, cases, check_requests, client_options
from tests.support.scripted_server import scripted


@pytest.mark.parametrize("case", cases(scripted=True), ids=str)
@pytest.mark.parametrize("variant", [SandboxClient, AsyncSandboxClient], ids=["blocking", "asyncio"])
async def test_scripted_conformance(variant: type, case: Case):
    assert case.script is not None
    with scripted(case.script) as server:
        client = variant(server.address, **client_options(case))
        try:
            await Run(client, {}).run(case)
        finally:
            closed = client.close()
            if closed is not None:
                await closed
        check_requests(case, server.calls)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"call": "get_pool", "with": {"pool_id": "p"}, "expect": {"image": "none"}}, r"result.image is ''"),
        ({"call": "get_pool", "with": {"pool_id": "p"}, "expect": {"colour": None}}, r"result.colour is <object"),
        ({"call": "get_pool", "with": {"pool_id": "p"}, "error": {"type": "TypeError"}}, "no error, but Pool"),
        ({"call": "get_pool", "error": {"type": "ValidationError"}}, "TypeError, not ValidationError"),
        (
            {"call": "get_template", "with": {"template_name": "t"}, "error": {"type": "ServerError", "reason": "X"}},
            "X",
        ),
        ({"call": "get_pool", "expects": []}, "unknown keys"),
        ({"call": "get_pool", "with": {"pool_id": "p"}, "expect": {"$like": 1}}, "unknown rule"),
    ],
)
def test_a_step_that_is_not_as_expected_fails(step: dict[str, object], message: str):
    import asyncio

    with (
        scripted({"GetPool": [{"response": {"pool": {"pool_id": "p"}}}]}) as server,
        SandboxClient(server.address) as client,
        pytest.raises(AssertionError, match=message),
    ):
        asyncio.run(Run(client, {}).run(Case("about", "name", [step])))


def test_requests_that_were_not_received_fail():
    case = Case("about", "name", [], script={}, requests=[{"method": "GetPool"}])
    with pytest.raises(AssertionError, match="requests has 0 items"):
        check_requests(case, [])


def test_every_file_is_read():
    names = {case.about for scripted_ in (True, False) for case in cases(scripted=scripted_)}
    assert names == {path.stem for path in Path(__file__).parents[2].joinpath("conformance").glob("*.json")}
