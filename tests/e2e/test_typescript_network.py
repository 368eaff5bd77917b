"""The TypeScript client loses no data and runs nothing twice when its network breaks."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpool import SandboxClient
from tests.support.cut_proxy import CutProxy
from tests.support.node_project import NodeProject
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

LINES = 400
OUT = "".join(f"line {number}\n" for number in range(LINES))
ERR = "".join(f"warning {number}\n" for number in range(LINES))
PREAMBLE = f"""
import {{ createHash, randomBytes }} from "node:crypto";
import {{ createConnection }} from "node:net";
import {{ SandboxClient }} from "sandpool";
const LONG = "echo ran >> /runs; i=0; while [ $i -lt {LINES} ]; do echo line $i; echo warning $i >&2; i=$((i+1)); " +
  "[ $((i % 40)) = 0 ] && sleep 0.1; done; exit 5";
const out: Record<string, unknown> = {{}};
const client = new SandboxClient({{ retry: {{ maxAttempts: 9 }} }});
await using sandbox = await client.create({{ image: "busybox:latest", ephemeralDiskMb: 256 }});
"""


def cut(proxy: CutProxy) -> None:
    """Break all connections. Fail if there is none."""
    assert proxy.cut() > 0


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[CutProxy]:
    with CutProxy(server.address) as made:
        yield made


@pytest.fixture
def project(tmp_path: Path, proxy: CutProxy) -> NodeProject:
    return NodeProject(tmp_path, proxy.address)


def test_a_command_survives_several_broken_connections(project: NodeProject, proxy: CutProxy) -> None:
    found = project.talk(
        PREAMBLE
        + """
let heard = "";
let cuts = 0;
const result = await sandbox.run(LONG, {
  onStdout: (text) => {
    heard += text;
    if (heard.length > 800 * (cuts + 1) && cuts < 5) {
      cuts++;
      void tell("cut");
    }
  },
});
out.result = [result.stdout, result.stderr, result.exitCode];
out.heard = heard;
out.runs = await sandbox.files.readText("/runs");
""",
        lambda _: cut(proxy),
    )
    assert found == {"result": [OUT, ERR, 5], "heard": OUT, "runs": "ran\n"}
    assert proxy.cuts >= 4


def test_a_command_without_listeners_survives_broken_connections(project: NodeProject, proxy: CutProxy) -> None:
    found = project.talk(
        PREAMBLE
        + """
const command = sandbox.run(LONG);
for (const seen = new Set<string>(); seen.size < 3; ) {
  const running = await sandbox.processes.list({ states: ["running"] }).toArray();
  const found = running.find(({ command }) => command === LONG);
  const printed = found?.stdout.endOffset ?? 0;
  const mark = String(Math.floor(printed / 800));
  if (mark !== "0" && !seen.has(mark)) {
    seen.add(mark);
    await tell("cut");
  }
}
const result = await command;
out.result = [result.stdout, result.stderr, result.exitCode];
out.runs = await sandbox.files.readText("/runs");
""",
        lambda _: cut(proxy),
    )
    assert found == {"result": [OUT, ERR, 5], "runs": "ran\n"}
    assert proxy.cuts >= 3


def test_a_process_handle_yields_each_chunk_once(project: NodeProject, proxy: CutProxy) -> None:
    found = project.talk(
        PREAMBLE
        + """
const handle = await sandbox.processes.start(LONG);
const got = { stdout: "", stderr: "" };
let cuts = 0;
for await (const { stream, data, offset } of handle) {
  if (offset !== got[stream].length) throw new Error(`${stream} at ${offset}`);
  got[stream] += data;
  if (got.stdout.length > 800 * (cuts + 1) && cuts < 5) {
    cuts++;
    await tell("cut");
  }
}
const result = await handle.wait();
out.got = [got.stdout, got.stderr, result.stdout, result.stderr, result.exitCode];
out.runs = await sandbox.files.readText("/runs");
""",
        lambda _: cut(proxy),
    )
    assert found == {"got": [OUT, ERR, OUT, ERR, 5], "runs": "ran\n"}
    assert proxy.cuts >= 4


def test_a_command_survives_a_network_outage(project: NodeProject, proxy: CutProxy) -> None:
    def interrupt(_: str) -> None:
        proxy.refusing = True
        proxy.cut()
        threading.Timer(1.5, lambda: setattr(proxy, "refusing", False)).start()

    found = project.talk(
        PREAMBLE
        + """
let first = true;
const onStdout = () => {
  if (first) void tell("interrupt");
  first = false;
};
const result = await sandbox.run(LONG, { onStdout });
out.stdout = result.stdout;
out.runs = await sandbox.files.readText("/runs");
""",
        interrupt,
    )
    assert found == {"stdout": OUT, "runs": "ran\n"}
    assert proxy.refusing is False


def test_input_survives_broken_connections(project: NodeProject, proxy: CutProxy) -> None:
    found = project.talk(
        PREAMBLE
        + """
const handle = await sandbox.processes.start("cat; exit 3", { stdin: true });
for (let number = 0; number < 20; number++) {
  await handle.writeStdin(`${number}\\n`);
  if (number % 5 === 0) await tell("cut");
}
await handle.closeStdin();
const result = await handle.wait();
out.result = [result.stdout, result.exitCode];
""",
        lambda _: cut(proxy),
    )
    assert found == {"result": ["".join(f"{number}\n" for number in range(20)), 3]}
    assert proxy.cuts >= 4


def test_logs_and_watches_are_resumed(project: NodeProject, proxy: CutProxy) -> None:
    found = project.talk(
        PREAMBLE
        + """
const job = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.01; done";
await sandbox.processes.start(job, { name: "job" });
const lines: string[] = [];
for await (const { text } of sandbox.logs({ follow: true, sources: ["job"] })) {
  lines.push(text);
  if ([10, 30, 50].includes(lines.length)) await tell("cut");
  if (lines.length === 60) break;
}
out.lines = lines;
await sandbox.files.mkdir("/watched");
const changes: string[] = [];
const write = (name: string) => sandbox.files.write(`/watched/${name}`, "x");
const watch = await sandbox.files.watch("/watched");
void write("a");
for await (const { change, path } of watch) {
  changes.push(`${change} ${path}`);
  if (changes.length === 1) await tell("cut");
  if (change === "overflow") await write("b");
  if (path === "/watched/b") break;
}
out.overflow = changes.filter((change) => change === "overflow /watched").length;
out.b = changes.at(-1)?.endsWith(" /watched/b");
const states: string[] = [];
for await (const { state } of sandbox.watch()) {
  states.push(state);
  if (states.length === 1) await tell("cut");
  else await sandbox.delete();
}
out.states = [states[0], states[1], states.at(-1)];
""",
        lambda _: cut(proxy),
    )
    assert found["lines"] == [f"line {number}" for number in range(60)]
    assert (found["overflow"], found["b"]) == (1, True)
    assert found["states"] == ["running", "running", "terminated"]
    assert proxy.cuts >= 5


def test_a_watch_on_all_pools_reports_pools_deleted_while_the_network_was_down(
    project: NodeProject, proxy: CutProxy, client: SandboxClient
) -> None:
    def interrupt(pool_id: str) -> None:
        proxy.refusing = True
        cut(proxy)
        client.delete_pool(pool_id)
        proxy.refusing = False

    found = project.talk(
        PREAMBLE
        + """
const image = "busybox:latest";
const first = await client.createPool({ image });
const second = await client.createPool({ image });
const seen: string[] = [];
let deleted = 0;
for await (const { type, pool } of client.watchPools()) {
  seen.push(`${type} ${pool.poolId === second.poolId ? "second" : "first"}`);
  if (seen.length === 2) await tell(second.poolId);
  if (type === "deleted" && ++deleted === 1) await client.deletePool(first.poolId);
  if (deleted === 2) break;
}
out.deleted = seen.filter((event) => event.startsWith("deleted"));
out.again = seen.slice(2).includes("current first");
""",
        interrupt,
    )
    assert found == {"deleted": ["deleted second", "deleted first"], "again": True}


def test_waiting_for_a_pool_survives_a_broken_connection(project: NodeProject, proxy: CutProxy) -> None:
    found = project.talk(
        PREAMBLE
        + """
const pool = await client.createPool({ image: "busybox:latest", warmContainers: 2 });
const warm: number[] = [];
const onProgress = (seen: { status: { warm: number } }) => {
  if (warm.push(seen.status.warm) === 1) void tell("cut");
};
out.full = (await client.waitForPool(pool.poolId, { onProgress })).status.warm;
out.last = warm.at(-1);
await client.deletePool(pool.poolId);
""",
        lambda _: cut(proxy),
    )
    assert found == {"full": 2, "last": 2}


def test_files_survive_several_broken_connections(project: NodeProject, proxy: CutProxy) -> None:
    found = project.talk(
        PREAMBLE
        + """
const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const content = randomBytes(24 << 20);
let marks = 0;
async function* slowly() {
  for (let begin = 0; begin < content.length; begin += 1 << 20) {
    if (begin / (6 << 20) > marks + 1) {
      marks++;
      await tell("cut");
    }
    yield content.subarray(begin, begin + (1 << 20));
  }
}
const written = await sandbox.files.write("/big", slowly());
out.size = written.size;
out.there = (await sandbox.run("sha256sum /big")).stdout.startsWith(digest(content));
out.cutWhileWritten = marks;
marks = 0;
const parts: Uint8Array[] = [];
let size = 0;
for await (const part of sandbox.files.stream("/big")) {
  parts.push(part);
  size += part.length;
  if (size / (6 << 20) > marks + 1) {
    marks++;
    await tell("cut");
  }
}
out.back = digest(Buffer.concat(parts)) === digest(content);
out.cutWhileRead = marks;
""",
        lambda _: cut(proxy),
    )
    assert found == {"size": 24 << 20, "there": True, "back": True, "cutWhileWritten": 3, "cutWhileRead": 3}
    assert proxy.cuts >= 6


def test_transfers_of_local_files_survive_broken_connections(
    project: NodeProject, proxy: CutProxy, tmp_path: Path
) -> None:
    """The network breaks each time another sixth of the file is transferred."""
    content = os.urandom(24 << 20)
    (tmp_path / "local").write_bytes(content)
    found = project.talk(
        PREAMBLE
        + f"""
const places = {{ local: {json.dumps(str(tmp_path / "local"))}, copy: {json.dumps(str(tmp_path / "copy"))} }};
"""
        + """
const cuts = () => {
  const found = { marks: 0, onProgress };
  function onProgress(done: number, total: number) {
    if (done / (total / 6) <= found.marks + 1 || found.marks === 3) return;
    found.marks++;
    void tell("cut");
  }
  return found;
};
const up = cuts();
const written = await sandbox.files.upload(places.local, "/big", { mode: 0o750, onProgress: up.onProgress });
out.written = [written.size, written.mode];
out.digest = (await sandbox.run("sha256sum /big")).stdout.split(" ")[0];
const down = cuts();
const read = await sandbox.files.download("/big", places.copy, { onProgress: down.onProgress });
out.read = [read.size, read.mode];
out.cuts = [up.marks, down.marks];
""",
        lambda _: cut(proxy),
    )
    assert found == {
        "written": [24 << 20, 0o750],
        "digest": hashlib.sha256(content).hexdigest(),
        "read": [24 << 20, 0o750],
        "cuts": [3, 3],
    }
    assert proxy.cuts >= 6
    assert (tmp_path / "copy").read_bytes() == content
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o750
    assert not list(tmp_path.glob(".copy.*"))


def test_transfers_survive_a_killed_server(own_server: ServerProcess, tmp_path: Path) -> None:
    content = os.urandom(24 << 20)
    (tmp_path / "local").write_bytes(content)

    def kill(_: str) -> None:
        own_server.kill()
        own_server.start()

    program = """
/** Kills the server once, after a third of the file. */
const killing = () => {
  let killed: Promise<void> | undefined;
  const onProgress = (done: number, total: number) => {
    if (done > total / 3 && done < total) killed ??= tell("kill");
  };
  return { onProgress, done: async () => (await killed, killed !== undefined) };
};
const up = killing();
await sandbox.files.upload("local", "/big", up);
out.up = await up.done();
const down = killing();
await sandbox.files.download("/big", "copy", down);
out.down = await down.done();
"""
    preamble = PREAMBLE.replace("{ retry: { maxAttempts: 9 } }", "")
    assert NodeProject(tmp_path, own_server.address).talk(preamble + program, kill) == {"up": True, "down": True}
    assert (tmp_path / "copy").read_bytes() == content


def test_a_tunnel_accepts_connections_after_broken_ones(project: NodeProject, proxy: CutProxy) -> None:
    found = project.talk(
        PREAMBLE
        + """
const healthCheck = { port: 7000, intervalMs: 100 };
await sandbox.processes.start("exec nc -ll -p 7000 -e cat", { name: "echo", healthCheck });
while ((await sandbox.processes.get("echo")).health !== "healthy");
const connect = (port: number) => {
  const socket = createConnection({ port, host: "127.0.0.1" });
  const events: string[] = [];
  socket.on("error", () => events.push("broken")).on("end", () => events.push("end"));
  const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()));
  const echo = (text: string) =>
    new Promise<string>((resolve) => {
      socket.once("data", (data) => resolve(data.toString()));
      socket.write(text);
    });
  return { socket, events, closed, echo };
};
{
  await using tunnel = await sandbox.ports.tunnel(7000);
  const before = connect(tunnel.localPort);
  out.before = await before.echo("hello");
  await tell("cut");
  await before.closed;
  out.events = before.events.length > 0;
  const after = connect(tunnel.localPort);
  out.after = await after.echo("again");
  after.socket.destroy();
}
""",
        lambda _: cut(proxy),
    )
    assert found == {"before": "hello", "events": True, "after": "again"}
