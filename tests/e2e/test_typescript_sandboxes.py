"""Commands, files, services and ports of sandboxes with the published TypeScript client."""

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
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { ResourceNotFoundError, ResourceStateError, SandboxClient, SandpoolError } from "sandpool";
const client = new SandboxClient();
const out: Record<string, unknown> = {};
"""
END = """
console.log(JSON.stringify(out));
"""


@pytest.fixture
def project(tmp_path: Path, server: ServerProcess) -> NodeProject:
    return NodeProject(tmp_path, server.address)


def test_runs_commands_processes_and_terminals(project: NodeProject) -> None:
    found = project.run(
        PREAMBLE
        + """
await using sandbox = await client.create({ image: "busybox:latest" });
const pieces: string[] = [];
const result = await sandbox.run("printf 'a\\\\303'; sleep 0.1; printf '\\\\244b'; echo err >&2; exit 3", {
  onStdout: (text) => pieces.push(text),
});
out.result = { ...result, stdoutBytes: null, stderrBytes: null };
out.pieces = pieces.join("");

out.input = (await sandbox.run("cat; cat >&2", { stdin: "input" })).stdout;
const process = await sandbox.processes.start("read line; echo got $line; sleep 4711", { stdin: true });
await process.writeStdin("hello\\n");
for await (const chunk of process) {
  const { stream, data, offset, droppedBytes } = chunk;
  out.chunk = { stream, data, offset, droppedBytes };
  break;
}
const again = await sandbox.processes.attach(process.processId);
await again.kill();
const killed = await again.wait();
out.killed = [killed.reason, killed.signal, killed.stdout];
const listed = await sandbox.processes.list().toArray();
out.listed = listed.map(({ processId, state }) => [processId === process.processId, state]);

let shown = "";
const onData = (data: Uint8Array) => void (shown += new TextDecoder().decode(data));
const terminal = await sandbox.terminals.create(["sh"], { rows: 9, cols: 33, onData });
await terminal.resize(11, 44);
await terminal.write("stty size; exit 7\\n");
out.terminal = [await terminal.wait(), shown.includes("11 44\\r\\n")];

const timedOut = await sandbox.run("sleep 4711", { timeoutMs: 200 });
out.timedOut = [timedOut.reason, timedOut.success];
const once = await sandbox.run("echo once", { resumable: false });
out.once = [once.stdout, once.stdoutBytes.length];
out.refused = await sandbox.processes.start(["no-such-program"]).catch((error: SandpoolError) => error.reason);
"""
        + END
    )
    expected = {"stdout": "aäb", "stderr": "err\n", "exitCode": 3, "reason": "exited", "success": False}
    assert expected.items() <= found["result"].items()
    assert found["pieces"] == "aäb"
    assert found["input"] == "input"
    assert found["once"] == ["once\n", 5]
    assert found["chunk"] == {"stream": "stdout", "data": "got hello\n", "offset": 0, "droppedBytes": 0}
    assert found["killed"] == ["killed", 9, "got hello\n"]
    assert [True, "exited"] in found["listed"]
    assert found["terminal"] == [7, True]
    assert found["timedOut"] == ["timed_out", False]
    assert found["refused"] == "EXECUTABLE_NOT_FOUND"


def test_reads_writes_and_watches_files(project: NodeProject) -> None:
    found = project.run(
        PREAMBLE
        + """
await using sandbox = await client.create({ image: "busybox:latest" });
const data = randomBytes(5 << 20);
let progress = 0;
const onProgress = (bytes: number) => (progress = bytes);
const written = await sandbox.files.write("/tmp/deep/file", data, { mode: 0o600, onProgress });
out.written = [written.size, written.mode, progress];
out.same = Buffer.compare(Buffer.from(await sandbox.files.read("/tmp/deep/file")), data);
let rest = 0;
for await (const part of sandbox.files.stream("/tmp/deep/file", { offset: 5 << 19 })) rest += part.length;
out.rest = rest;
await sandbox.files.write("/tmp/deep/text", "ä");
await sandbox.files.write("/tmp/deep/text", "b", { writeMode: "append" });
out.text = await sandbox.files.readText("/tmp/deep/text");
await sandbox.files.mkdir("/tmp/deep/more");
await sandbox.files.move("/tmp/deep/text", "/tmp/deep/more/moved");
await sandbox.files.copy("/tmp/deep/more", "/tmp/copy");
out.listed = (await sandbox.files.list("/tmp/deep", { depth: 2 }).toArray()).map((file) => [file.path, file.type]);
out.globbed = (await sandbox.files.glob("/tmp/**/moved").toArray()).map((file) => file.path);
const parts: Uint8Array[] = [];
for await (const part of sandbox.files.downloadArchive("/tmp/copy")) parts.push(part);
const uploaded = await sandbox.files.uploadArchive(Buffer.concat(parts), "/tmp/unpacked");
out.uploaded = [uploaded.bytesWritten, await sandbox.files.readText("/tmp/unpacked/moved")];
mkdirSync("local/sub", { recursive: true });
writeFileSync("local/sub/file", "local");
const sent = await sandbox.files.uploadDirectory("local", "/tmp/sent");
const received = await sandbox.files.downloadDirectory("/tmp/sent", "received");
out.directory = [sent, received, readFileSync("received/sub/file", "utf8")];
const watch = await sandbox.files.watch("/tmp/copy");
await sandbox.files.write("/tmp/copy/new", "x");
out.changed = (await watch.next()).value?.path;
await watch.return();
await sandbox.files.remove("/tmp/deep", { recursive: true });
const missing = await sandbox.files.read("/tmp/deep/file").catch((error: unknown) => error);
out.missing = missing instanceof ResourceNotFoundError ? [missing.reason, missing.resourceName] : String(missing);
out.stat = (await sandbox.files.stat("/tmp/copy")).type;
"""
        + END
    )
    assert found["written"] == [5 << 20, 0o600, 5 << 20]
    assert (found["same"], found["rest"], found["text"]) == (0, 5 << 19, "äb")
    assert ["/tmp/deep/more/moved", "file"] in found["listed"]
    assert sorted(found["globbed"]) == ["/tmp/copy/moved", "/tmp/deep/more/moved"]
    assert found["uploaded"] == [3, "äb"]
    assert found["directory"] == [{"entries": 2, "bytesWritten": 5}, 2, "local"]
    assert found["changed"].startswith("/tmp/copy/")
    assert found["missing"] == ["FILE_NOT_FOUND", "/tmp/deep/file"]
    assert found["stat"] == "directory"


def test_supports_services_ports_logs_and_metrics(project: NodeProject) -> None:
    found = project.run(
        PREAMBLE
        + """
await using sandbox = await client.create({ image: "busybox:latest" });
await sandbox.files.write("/w/index.html", "hello\\n");
const web = await sandbox.processes.start("echo serving; exec httpd -f -p 8000 -h /w", {
  name: "web",
  restartPolicy: "always",
  healthCheck: { port: 8000, path: "/", intervalMs: 100 },
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
  await using tunnel = await sandbox.ports.tunnel(8000);
  out.pages = await Promise.all(Array.from({ length: 20 }, () => fetchOnce(tunnel.localPort)));
  await using nowhere = await sandbox.ports.tunnel(8001);
  out.nowhere = await fetchOnce(nowhere.localPort).catch((error: { code: string }) => error.code);
  out.lastError = nowhere.lastError?.name;
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
const metrics = await sandbox.metrics();
out.metrics = [metrics.cpus, metrics.memoryLimitBytes, metrics.processes > 0];
for await (const seen of sandbox.watchMetrics({ intervalMs: 100 })) {
  out.later = seen.time > metrics.time;
  break;
}
await sandbox.processes.signal("web", 15);
await sandbox.processes.kill("web");
out.killed = (await sandbox.processes.get("web")).state;
"""
        + END
    )
    assert len(found["pages"]) == 20
    assert all(page.endswith("hello\n") for page in found["pages"])
    assert found["nowhere"] == "ECONNRESET"
    assert found["lastError"] == "TunnelConnectionRefusedError"
    assert found["off"] == "PORT_EXPOSURE_DISABLED"
    assert found["restarted"] == [1, True]
    assert found["lines"] == ["web: serving", "web: serving"]
    assert found["metrics"] == [1, 512 << 20, True]
    assert found["later"]
    assert found["killed"] == "exited"


def test_a_command_survives_a_killed_server(tmp_path: Path) -> None:
    """Row 21 of tests/user-demands.md: no output is lost, and no command runs twice."""
    with ServerProcess(tmp_path / "data") as server:
        with SandboxClient(server.address) as client:
            sandbox = client.create(image="busybox:latest")
        (tmp_path / "node").mkdir()
        project = NodeProject(tmp_path / "node", server.address)
        program = f"""
const sandbox = await client.getSandbox("{sandbox.sandbox_id}");
const command = "echo run >> /tmp/runs; i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo $i; sleep 0.01; done";
const result = await sandbox.run(command);
out.lines = result.stdout.split("\\n");
out.runs = await sandbox.files.readText("/tmp/runs");
"""
        results = []
        running = threading.Thread(target=lambda: results.append(project.run(PREAMBLE + program + END)))
        running.start()
        with SandboxClient(server.address) as client:
            started = client.get_sandbox(sandbox.sandbox_id)
            while "run" not in started.run("cat /tmp/runs 2>/dev/null || true").stdout:
                pass
        server.kill()
        server.start()
        running.join(90)
    assert results[0]["lines"] == [*(str(number + 1) for number in range(600)), ""]
    assert results[0]["runs"] == "run\n"
