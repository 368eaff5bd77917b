"""What goes on inside sandboxes, by the TypeScript client as it is published, on real containers."""

import threading
from pathlib import Path

import pytest

from sandpool import SandboxClient
from tests.support.node_project import NodeProject
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

PREAMBLE = """
import { createHash, randomBytes } from "node:crypto";
import { createConnection } from "node:net";
import { CommandHandle, ResourceNotFoundError, ResourceStateError, SandboxClient, SandpoolError } from "sandpool";
const client = new SandboxClient();
const out: Record<string, unknown> = {};
"""
END = """
console.log(JSON.stringify(out));
"""


@pytest.fixture
def project(tmp_path: Path, server: ServerProcess) -> NodeProject:
    return NodeProject(tmp_path, server.address)


def test_commands_with_streams(project: NodeProject) -> None:
    told = project.run(
        PREAMBLE
        + """
await using sandbox = await client.create({ image: "busybox:latest" });
const pieces: string[] = [];
const result = await sandbox.run("printf 'a\\\\303'; sleep 0.1; printf '\\\\244b'; echo err >&2; exit 3", {
  onStdout: (text) => pieces.push(text),
});
out.result = { ...result, durationMs: 0 };
out.pieces = pieces.join("");

const handle: CommandHandle = await sandbox.run("read line; echo got $line; sleep 4711", { wait: false, stdin: true });
await handle.sendInput("hello\\n");
for await (const chunk of handle) {
  out.chunk = { stream: chunk.stream, data: chunk.data, offset: chunk.offset };
  break;
}
const again = await sandbox.reconnect(handle.commandId);
await again.kill();
const killed = await again.result;
out.killed = [killed.reason, killed.signal, killed.stdout];
out.listed = (await sandbox.processes.list()).map((process) => [process.processId === handle.commandId, process.state]);

const terminal = await sandbox.run(["sh"], { wait: false, pty: { rows: 9, cols: 33 } });
await terminal.resize({ rows: 11, cols: 44 });
await terminal.sendInput("stty size; exit 7\\n");
const shown = await terminal.result;
out.terminal = [shown.exitCode, shown.stdout.includes("11 44\\r\\n")];

const timedOut = await sandbox.run("sleep 4711", { timeout: 0.2, onStdout: () => undefined });
out.timedOut = [timedOut.reason, timedOut.success];
const refused = await sandbox.run(["no-such-program"], { wait: false }).catch((error: SandpoolError) => error.reason);
out.refused = refused;
"""
        + END
    )
    expected = {"stdout": "aäb", "stderr": "err\n", "exitCode": 3, "reason": "exited", "success": False}
    assert expected.items() <= told["result"].items()
    assert told["pieces"] == "aäb"
    assert told["chunk"] == {"stream": "stdout", "data": "got hello\n", "offset": 0}
    assert told["killed"] == ["killed", 9, "got hello\n"]
    assert [True, "ended"] in told["listed"]
    assert told["terminal"] == [7, True]
    assert told["timedOut"] == ["timed_out", False]
    assert told["refused"] == "EXECUTABLE_NOT_FOUND"


def test_files(project: NodeProject) -> None:
    told = project.run(
        PREAMBLE
        + """
await using sandbox = await client.create({ image: "busybox:latest" });
const data = randomBytes(5 << 20);
let progress = 0;
const written = await sandbox.write("/tmp/deep/file", data, { mode: 0o600, onProgress: (bytes) => (progress = bytes) });
out.written = [written.size, written.mode, progress];
out.same = Buffer.compare(Buffer.from(await sandbox.read("/tmp/deep/file")), data);
let rest = 0;
for await (const part of sandbox.files.stream("/tmp/deep/file", { offset: 5 << 19 })) rest += part.length;
out.rest = rest;
await sandbox.write("/tmp/deep/text", "ä");
await sandbox.write("/tmp/deep/text", "b", { writeMode: "append" });
out.text = await sandbox.files.readText("/tmp/deep/text");
await sandbox.files.mkdir("/tmp/deep/more");
await sandbox.files.move("/tmp/deep/text", "/tmp/deep/more/moved");
await sandbox.files.copy("/tmp/deep/more", "/tmp/copy");
out.listed = (await sandbox.files.list("/tmp/deep", { depth: 2 })).map((file) => [file.path, file.type]);
out.globbed = (await sandbox.files.glob("/tmp/**/moved")).map((file) => file.path);
const parts: Uint8Array[] = [];
for await (const part of sandbox.files.downloadFolder("/tmp/copy")) parts.push(part);
const uploaded = await sandbox.files.uploadFolder("/tmp/unpacked", Buffer.concat(parts));
out.uploaded = [uploaded.bytesWritten, await sandbox.files.readText("/tmp/unpacked/moved")];
out.changed = await new Promise(async (resolve) => {
  const write = () => void sandbox.write("/tmp/copy/new", "x");
  for await (const change of sandbox.files.watch("/tmp/copy", { onReady: write })) return resolve(change.path);
});
await sandbox.files.remove("/tmp/deep", { recursive: true });
const missing = await sandbox.read("/tmp/deep/file").catch((error: unknown) => error);
out.missing = missing instanceof ResourceNotFoundError ? [missing.reason, missing.resourceName] : String(missing);
out.stat = (await sandbox.files.stat("/tmp/copy")).type;
"""
        + END
    )
    assert told["written"] == [5 << 20, 0o600, 5 << 20]
    assert (told["same"], told["rest"], told["text"]) == (0, 5 << 19, "äb")
    assert ["/tmp/deep/more/moved", "file"] in told["listed"]
    assert sorted(told["globbed"]) == ["/tmp/copy/moved", "/tmp/deep/more/moved"]
    assert told["uploaded"] == [3, "äb"]
    assert told["changed"].startswith("/tmp/copy/")
    assert told["missing"] == ["FILE_NOT_FOUND", "/tmp/deep/file"]
    assert told["stat"] == "directory"


def test_services_ports_logs_and_figures(project: NodeProject) -> None:
    told = project.run(
        PREAMBLE
        + """
await using sandbox = await client.create({ image: "busybox:latest" });
await sandbox.write("/w/index.html", "hello\\n");
const web = await sandbox.processes.start("echo serving; exec httpd -f -p 8000 -h /w", {
  name: "web",
  restart: "always",
  healthCheck: { port: 8000, path: "/", intervalSecs: 0.1 },
});
while ((await sandbox.processes.get("web")).health !== "healthy");
const fetchOnce = (port: number) =>
  new Promise<string>((resolve, reject) => {
    const socket = createConnection({ port, host: "127.0.0.1" });
    let text = "";
    socket.on("data", (data) => (text += data)).on("end", () => resolve(text)).on("error", reject);
    socket.write("GET / HTTP/1.0\\r\\n\\r\\n");
  });
{
  await using tunnel = await sandbox.tunnel(8000);
  out.pages = await Promise.all(Array.from({ length: 20 }, () => fetchOnce(tunnel.localPort)));
  await using nowhere = await sandbox.tunnel(8001);
  out.nowhere = await fetchOnce(nowhere.localPort).catch((error: { code: string }) => error.code);
}
out.off = await sandbox.ports.expose(8000).catch((error: unknown) => (error as ResourceStateError).reason);
const restarted = await sandbox.processes.restart("web");
out.restarted = [restarted.restarts, restarted.pid !== web.pid];
const lines: string[] = [];
for await (const entry of sandbox.logs({ follow: true })) {
  lines.push(`${entry.source}: ${entry.text}`);
  if (lines.length === 2) break;
}
out.lines = lines;
const stats = await sandbox.stats();
out.stats = [stats.cpus, stats.memoryLimitBytes, stats.processes > 0];
for await (const seen of sandbox.watchStats({ interval: 0.1 })) {
  out.later = seen.time > stats.time;
  break;
}
await sandbox.processes.signal("web", 15);
out.ended = (await sandbox.processes.kill("web")).state;
"""
        + END
    )
    assert len(told["pages"]) == 20
    assert all(page.endswith("hello\n") for page in told["pages"])
    assert told["nowhere"] == "ECONNRESET"
    assert told["off"] == "WEB_PORT_OFF"
    assert told["restarted"] == [1, True]
    assert told["lines"] == ["web: serving", "web: serving"]
    assert told["stats"] == [1, 512 << 20, True]
    assert told["later"]
    assert told["ended"] == "ended"


def test_a_command_goes_on_over_a_killed_server(tmp_path: Path) -> None:
    """Row 21: nothing is lost, and nothing runs twice."""
    with ServerProcess(tmp_path / "data") as server:
        with SandboxClient(server.address) as client:
            sandbox = client.create(image="busybox:latest")
        (tmp_path / "node").mkdir()
        project = NodeProject(tmp_path / "node", server.address)
        program = f"""
const sandbox = await client.getSandbox("{sandbox.sandbox_id}");
const command = "echo run >> /tmp/runs; i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo $i; sleep 0.01; done";
const result = await sandbox.run(command, {{ onStdout: () => undefined }});
out.lines = result.stdout.split("\\n");
out.runs = await sandbox.files.readText("/tmp/runs");
"""
        told = []
        running = threading.Thread(target=lambda: told.append(project.run(PREAMBLE + program + END)))
        running.start()
        with SandboxClient(server.address) as client:
            started = client.connect(sandbox.sandbox_id)
            while "run" not in started.run("cat /tmp/runs 2>/dev/null || true").stdout:
                pass
        server.kill()
        server.start()
        running.join(90)
    assert told[0]["lines"] == [*(str(number + 1) for number in range(600)), ""]
    assert told[0]["runs"] == "run\n"
