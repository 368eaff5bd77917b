"""The published TypeScript client against a server on a container engine.

The first test takes its program from the document on warm pools, in the directory that SANDPOOL_SEEDS names; the other
tests make the same calls and more without it.
"""

import re
from pathlib import Path

import pytest

from sandpool import SandboxClient
from tests.support import documents
from tests.support.node_project import PACKAGE, NodeProject
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

IMAGE = "python:3.11-slim"


def typescript_of(document: str) -> str:
    """Return the TypeScript program of a document, from its first import to the last line that closes a call."""
    lines = document.splitlines()
    first = next(number for number, line in enumerate(lines) if re.fullmatch(r'import .* from "[^"]+";', line))
    last = max(number for number, line in enumerate(lines) if line == "});")
    return "\n".join(lines[first : last + 1]) + "\n"


@pytest.fixture
def project(tmp_path: Path, server: ServerProcess) -> NodeProject:
    return NodeProject(tmp_path, server.address)


@pytest.mark.skipif(
    not documents.directory().is_dir(),
    reason=f"the documents are not in {documents.directory()}; {documents.DIRECTORY_VARIABLE} names their directory",
)
def test_runs_the_program_of_the_document(project: NodeProject, client: SandboxClient) -> None:
    program = typescript_of(documents.document("langsmith"))
    imported = '"langsmith/experimental/sandbox"'
    assert program.count(imported) == 1
    client.create_template("python-sandbox", image=IMAGE)
    printed = '\nconsole.log(JSON.stringify(await client.getPool("python-pool")));\n'
    output = project.run(program.replace(imported, '"sandpool"') + printed)
    pool = client.get_pool("python-pool")
    assert (pool.template_name, pool.warm_containers) == ("python-sandbox", 5)
    found = (output["poolId"], output["warmContainers"], output["templateName"])
    assert found == (pool.pool_id, 5, "python-sandbox")
    client.delete_pool(pool.pool_id)


def test_claims_from_a_pool_of_a_template(project: NodeProject, client: SandboxClient) -> None:
    client.create_template("own-template", image=IMAGE)
    output = project.run(
        """
        import { SandboxClient } from "sandpool/sandbox";

        const client = new SandboxClient();
        const pool = await client.createPool("own-pool", { templateName: "own-template", size: 1 });
        for await (const { pool } of client.watchPools(["own-pool"])) {
          if (pool.status.warm === 1) break;
        }
        const sandbox = await client.create({ templateName: "own-template" });
        const { stdout, exitCode } = await sandbox.run("python3 -c 'print(6 * 7)'");
        await sandbox.delete();
        console.log(JSON.stringify({ pool, sandbox, stdout, exitCode }));
        """
    )
    pool = client.get_pool("own-pool")
    assert (pool.template_name, pool.warm_containers) == ("own-template", 1)
    assert output["pool"]["poolId"] == pool.pool_id
    assert (output["sandbox"]["startType"], output["sandbox"]["poolId"]) == ("warm", pool.pool_id)
    assert (output["stdout"], output["exitCode"]) == ("42\n", 0)
    client.delete_pool(pool.pool_id)


def test_errors_have_classes_and_details(project: NodeProject) -> None:
    output = project.run(
        """
        import { ResourceNotFoundError, SandboxClient, SandpoolError, ValidationError } from "sandpool";

        const client = new SandboxClient();
        const caught = async (call: Promise<unknown>): Promise<SandpoolError> => {
          const error: unknown = await call.catch((thrown: unknown) => thrown);
          if (error instanceof SandpoolError) return error;
          throw new Error(`not an error of the package: ${String(error)}`);
        };
        const missing = await caught(client.getPool("no-such-pool"));
        const wrong = await caught(client.createPool({ image: "python:3.11-slim", memoryMb: 1 }));
        console.log(JSON.stringify({
          kinds: [missing instanceof ResourceNotFoundError, wrong instanceof ValidationError],
          missing,
          fields: wrong.fieldViolations.map(({ field }) => field),
        }));
        """
    )
    assert output["kinds"] == [True, True]
    assert output["fields"] == ["spec.memory_mb"]
    found = {name: output["missing"][name] for name in ("reason", "resourceType", "resourceName")}
    assert found == {"reason": "POOL_NOT_FOUND", "resourceType": "pool", "resourceName": "no-such-pool"}


def test_the_example_prints_its_times_and_deletes_its_resources(project: NodeProject, client: SandboxClient) -> None:
    before = {pool.pool_id for pool in client.list_pools()}
    times = project.output(str(PACKAGE / "dist" / "examples" / "template_pool.js"), IMAGE, "1")
    assert set(times) == {"coldStartMs", "fillMs", "warmStartMs", "firstCommandMs", "refillMs"}
    assert all(value > 0 for value in times.values())
    assert {pool.pool_id for pool in client.list_pools()} == before
    assert not [template for template in client.list_templates() if template.name.startswith("ts-template-")]
