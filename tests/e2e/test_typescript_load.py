"""A thousand concurrent calls from one process of Node: all return, and no resources are leaked."""

from pathlib import Path

import pytest

from tests.support.node_project import NodeProject
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

PROGRAM = """
import { readdirSync } from "node:fs";
import { ResourceNotFoundError, SandboxClient } from "sandpool";

const CALLS = 1000;
const ROUNDS = 6;
const client = new SandboxClient({ requestTimeoutMs: 90_000 });
const many = <T>(count: number, call: (number: number) => Promise<T>) =>
  Promise.all(Array.from({ length: count }, (_, number) => call(number)));
/** Returns the resources that the process holds after a garbage collection. */
const held = async () => {
  await new Promise((resolve) => setImmediate(resolve));
  globalThis.gc?.();
  const timers = process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
  return { files: readdirSync("/proc/self/fd").length, timers, heap: process.memoryUsage().heapUsed };
};

const out: Record<string, unknown> = { collected: globalThis.gc !== undefined };
{
  await using sandbox = await client.create({ image: "busybox:latest" });
  const rounds = [];
  for (let round = 0; round < ROUNDS; round++) {
    const found = await many(CALLS, () => client.getSandbox(sandbox.sandboxId));
    const missing = await many(CALLS, () => client.getSandbox("none").catch((error: unknown) => error));
    const returned = found.every(({ state }) => state === "running");
    const refused = missing.every((error) => error instanceof ResourceNotFoundError);
    rounds.push({ returned, refused, ...(await held()) });
  }
  out.rounds = rounds;
  const runs = await many(100, (number) => sandbox.run(`echo ${number}`));
  out.runs = runs.map(({ stdout }) => stdout);
  const onStdout = () => { throw new Error("stop"); };
  await sandbox.run("echo started; sleep 1000", { onStdout }).catch((error: unknown) => (out.stopped = String(error)));
  const watches = await many(100, async () => {
    for await (const found of sandbox.watch()) return found.state;
  });
  out.watches = [...new Set(watches)];
  out.after = await held();
}
console.log(JSON.stringify(out)); // the process exits by itself, although the client is not closed
"""
MOST_GROWTH = 4 << 20
"""The bytes that 8,000 calls may leak: half a KiB each is detected."""


def test_a_thousand_concurrent_calls_leak_nothing(tmp_path: Path, server: ServerProcess) -> None:
    project = NodeProject(tmp_path, server.address)
    project.compile(PROGRAM)
    found = project.output("--expose-gc", "program.js")
    assert found["collected"]
    assert all(round["returned"] and round["refused"] for round in found["rounds"])
    assert found["runs"] == [f"{number}\n" for number in range(100)]
    assert found["stopped"] == "Error: stop"
    assert found["watches"] == ["running"]
    held = [*found["rounds"], found["after"]]
    assert len({round["files"] for round in held}) == 1, "all calls share one connection"
    assert max(round["timers"] for round in held) <= 2, "no call leaks its deadline"
    assert held[-1]["heap"] < held[1]["heap"] + MOST_GROWTH
    assert held[-2]["heap"] < held[1]["heap"] + MOST_GROWTH
