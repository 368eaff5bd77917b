"""A thousand calls at once from one process of Node, on a real server: all are answered, and nothing is left behind."""

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
const client = new SandboxClient({ timeoutMs: 90_000 });
const many = <T>(count: number, call: (number: number) => Promise<T>) =>
  Promise.all(Array.from({ length: count }, (_, number) => call(number)));
/** What the process holds, when all that is garbage is gone. */
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
    const states = await many(CALLS, () => client.getSandboxStatus(sandbox.sandboxId));
    const missing = await many(CALLS, () => client.getSandbox("none").catch((error: unknown) => error));
    const answered = states.every((state) => state === "running");
    const refused = missing.every((error) => error instanceof ResourceNotFoundError);
    rounds.push({ answered, refused, ...(await held()) });
  }
  out.rounds = rounds;
  const runs = await many(100, (number) => sandbox.run(`echo ${number}`));
  out.runs = runs.map(({ stdout }) => stdout);
  const watches = await many(100, async () => {
    for await (const found of sandbox.watch()) return found.state;
  });
  out.watches = [...new Set(watches)];
  out.after = await held();
}
console.log(JSON.stringify(out)); // and the process has to end by itself: the client is not even closed
"""
MOST_GROWTH = 4 << 20
"""Bytes that 8,000 calls may leave behind: half a KiB each would show."""


def test_a_thousand_calls_at_once(tmp_path: Path, server: ServerProcess) -> None:
    project = NodeProject(tmp_path, server.address)
    project.compile(PROGRAM)
    told = project.output("--expose-gc", "program.js")
    assert told["collected"]
    assert all(round["answered"] and round["refused"] for round in told["rounds"])
    assert told["runs"] == [f"{number}\n" for number in range(100)]
    assert told["watches"] == ["running"]
    held = [*told["rounds"], told["after"]]
    assert len({round["files"] for round in held}) == 1, "one connection, however many calls"
    assert max(round["timers"] for round in held) <= 2, "no call leaves its deadline behind"
    assert held[-1]["heap"] < held[1]["heap"] + MOST_GROWTH
    assert held[-2]["heap"] < held[1]["heap"] + MOST_GROWTH
