"""The TypeScript client in Chromium, through the web port of a server with containers."""

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser, browser_of_a_server, free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser_of_a_server(tmp_path_factory.mktemp("browser") / "data") as found:
        yield found


def test_creates_a_sandbox_and_streams_output(browser: Browser) -> None:
    found = browser.run(
        """
        const client = new sandpool.SandboxClient({ address });
        const out = { pools: (await client.listPools().toArray()).length };
        await client.createPool("web", { image: "busybox:latest", warmContainers: 1 });
        const sandbox = await client.create({ poolId: "web", whenEmpty: "wait", queueTimeoutMs: 60_000 });
        out.start = sandbox.startType;
        out.listed = (await client.listSandboxes().toArray()).map((found) => found.sandboxId === sandbox.sandboxId);
        out.plain = (await sandbox.run("echo plain")).stdout;
        const pieces = [];
        const command = "for i in 1 2 3; do echo $i; sleep 0.3; done; echo err >&2; exit 4";
        const times = [];
        const result = await sandbox.run(command, {
          onStdout: (text) => { pieces.push(text); times.push(performance.now()); },
        });
        out.result = [result.exitCode, result.stdout, result.stderr];
        out.streamed = pieces.length > 1 && times.at(-1) - times[0] > 200;
        let shown = "";
        const onData = (bytes) => { shown += new TextDecoder().decode(bytes); };
        const shell = await sandbox.terminals.create(["sh"], { rows: 5, cols: 50, onData });
        await shell.write("stty size; exit 9\\n");
        out.terminal = [await shell.wait(), shown.includes("5 50")];
        const data = crypto.getRandomValues(new Uint8Array(65536));
        await sandbox.files.write("/tmp/file", data);
        out.same = (await sandbox.files.read("/tmp/file")).every((byte, index) => byte === data[index]);
        for await (const seen of sandbox.watchMetrics({ intervalMs: 100 })) { out.cpus = seen.cpus; break; }
        await sandbox.delete();
        out.missing = await client.getPool("none").catch((error) => [error.constructor.name, error.reason]);
        out.tunnel = await sandbox.ports.tunnel(80).catch((error) => error.constructor.name);
        await client.deletePool("web", { force: true });
        return out;
        """
    )
    assert found == {
        "pools": 0,
        "start": "warm",
        "listed": [True],
        "plain": "plain\n",
        "result": [4, "1\n2\n3\n", "err\n"],
        "streamed": True,
        "terminal": [9, True],
        "same": True,
        "cpus": 1,
        "missing": ["PoolNotFoundError", "POOL_NOT_FOUND"],
        "tunnel": "TypeError",
    }


def test_rejects_a_page_of_another_origin(browser: Browser) -> None:
    program = """
        const client = new sandpool.SandboxClient({ address, retry: { maxAttempts: 1 } });
        return client.listPools().toArray().then(() => "served", () => "refused");
        """
    assert browser.run(program) == "served"
    assert browser.run(program, free_port()) == "refused"
