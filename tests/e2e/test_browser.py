"""The TypeScript client in a real Chromium, through the web port of a real server, on real containers."""

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser, browser_of_a_server, free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser_of_a_server(tmp_path_factory.mktemp("browser") / "data") as found:
        yield found


def test_list_create_and_run_with_streamed_output(browser: Browser) -> None:
    told = browser.run(
        """
        const client = new sandpool.SandboxClient({ address });
        const out = { pools: (await client.listPools()).length };
        await client.createPool("web", { image: "busybox:latest", warmContainers: 1 });
        const sandbox = await client.create({ poolId: "web", whenEmpty: "wait", waitSecs: 60 });
        out.start = sandbox.start;
        out.listed = (await client.listSandboxes()).map((found) => found.sandboxId === sandbox.sandboxId);
        out.plain = (await sandbox.run("echo plain")).stdout;
        const pieces = [];
        const command = "for i in 1 2 3; do echo $i; sleep 0.3; done; echo err >&2; exit 4";
        const times = [];
        const result = await sandbox.run(command, {
          onStdout: (text) => { pieces.push(text); times.push(performance.now()); },
        });
        out.result = [result.exitCode, result.stdout, result.stderr];
        out.streamed = pieces.length > 1 && times.at(-1) - times[0] > 200;
        const shell = await sandbox.run(["sh"], { wait: false, pty: { rows: 5, cols: 50 } });
        await shell.sendInput("stty size; exit 9\\n");
        const shown = await shell.result;
        out.terminal = [shown.exitCode, shown.stdout.includes("5 50")];
        const data = crypto.getRandomValues(new Uint8Array(65536));
        await sandbox.write("/tmp/file", data);
        out.same = (await sandbox.read("/tmp/file")).every((byte, index) => byte === data[index]);
        for await (const seen of sandbox.watchStats({ interval: 0.1 })) { out.cpus = seen.cpus; break; }
        await sandbox.delete();
        out.missing = await client.getPool("none").catch((error) => [error.constructor.name, error.reason]);
        out.tunnel = await sandbox.tunnel(80).catch((error) => error.constructor.name);
        await client.deletePool("web", { force: true });
        return out;
        """
    )
    assert told == {
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
        "tunnel": "ValidationError",
    }


def test_a_page_of_another_origin_gets_nothing(browser: Browser) -> None:
    program = """
        return new sandpool.SandboxClient({ address, maxRetries: 0 }).listPools().then(() => "served", () => "refused");
        """
    assert browser.run(program) == "served"
    assert browser.run(program, free_port()) == "refused"
