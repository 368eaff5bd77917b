"""Create pools and sandboxes in both styles, and print the times.

Uses the server at SANDPOOL_ADDRESS. `make demo` starts this server and removes its containers afterwards.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandpool import Pool, SandboxClient, SandpoolError, StartType

IMAGE = "python:3.11-slim"
WARM = 3
SIZE = 2
FILL_SECONDS = 300.0
TEMPLATE = "python-sandbox"
POOL = "python-pool"
COMMAND = "python3 -c 'print(6 * 7)'"
TYPESCRIPT = Path(__file__).resolve().parents[2] / "clients" / "ts" / "dist" / "examples" / "template_pool.js"

TYPESCRIPT_TIMES = {
    "coldStartMs": "cold start (no pool yet)",
    "fillMs": "fill an empty pool of 2",
    "warmStartMs": "warm start",
    "firstCommandMs": "first command",
    "refillMs": "refill after the warm start",
}


class DemoFailed(Exception):
    """A result differs from the documentation."""


class Times:
    """The measured times, in the order of the table."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, float]] = []

    @contextmanager
    def measure(self, style: str, step: str) -> Iterator[None]:
        """Measure the block and print the time."""
        started = time.perf_counter()
        yield
        self.since(started, style, step)

    def since(self, started: float, style: str, step: str) -> None:
        """Record and print the time since `started`, a value of time.perf_counter()."""
        milliseconds = (time.perf_counter() - started) * 1000
        self.record(style, step, milliseconds)
        print(f"    {step}: {milliseconds:,.1f} ms", flush=True)

    def record(self, style: str, step: str, milliseconds: float) -> None:
        """Record a time that another program measured."""
        self._rows.append((style, step, milliseconds))

    def table(self) -> str:
        """Return all times, one per line."""
        lines = [f"{'style':<10} {'step':<38} {'ms':>10}", "-" * 60]
        lines += [f"{style:<10} {step:<38} {ms:>10,.1f}" for style, step, ms in self._rows]
        return "\n".join(lines)


def wait_until_warm(client: SandboxClient, pool_id: str, warm: int) -> None:
    """Wait until `warm` containers of the pool are warm, and print each change."""
    seen = -1

    def show(pool: Pool) -> None:
        nonlocal seen
        if pool.status.warm != seen:
            seen = pool.status.warm
            print(f"    {seen} of {warm} containers warm, {pool.status.creating} starting", flush=True)

    client.wait_for_pool(pool_id, warm=warm, timeout=FILL_SECONDS, on_progress=show)


def expect(actual: object, expected: object) -> None:
    """Raise DemoFailed if the values differ."""
    if actual != expected:
        raise DemoFailed(f"got {actual!r}, expected {expected!r}")


def by_pool_id(client: SandboxClient, times: Times) -> None:
    """Create a pool with its own specification, and a sandbox by the identifier of the pool."""
    print(f"\n# Python: a pool of {WARM} warm containers of {IMAGE}, and a sandbox by pool_id")
    pool = client.create_pool(image=IMAGE, warm_containers=WARM)
    print(f"    created {pool.pool_id}")
    with times.measure("pool_id", f"fill an empty pool of {WARM}"):
        wait_until_warm(client, pool.pool_id, WARM)
    claimed = time.perf_counter()
    with times.measure("pool_id", "warm start"):
        sandbox = client.create(pool_id=pool.pool_id)
    expect(sandbox.start_type, StartType.WARM)
    with times.measure("pool_id", "first command"):
        result = sandbox.run(COMMAND)
    expect((result.stdout, result.exit_code), ("42\n", 0))
    print(f"    {COMMAND} printed {result.stdout.strip()} in {sandbox.sandbox_id}")
    wait_until_warm(client, pool.pool_id, WARM)
    times.since(claimed, "pool_id", "refill after the warm start")
    sandbox.delete()
    client.delete_pool(pool.pool_id)


def by_template(client: SandboxClient, times: Times) -> None:
    """Create a template, a pool that uses it, and sandboxes by the name of the template."""
    print(f"\n# Python: a template, a pool of {SIZE} warm containers, and sandboxes by template_name")
    client.create_template(TEMPLATE, image=IMAGE)
    with times.measure("template", "cold start (no pool yet)"):
        cold = client.create(template_name=TEMPLATE)
    expect(cold.start_type, StartType.COLD)
    with times.measure("template", "first command after the cold start"):
        expect(cold.run(COMMAND).stdout, "42\n")
    cold.delete()
    client.create_pool(POOL, template_name=TEMPLATE, size=SIZE)
    with times.measure("template", f"fill an empty pool of {SIZE}"):
        wait_until_warm(client, POOL, SIZE)
    claimed = time.perf_counter()
    with times.measure("template", "warm start"):
        warm = client.create(template_name=TEMPLATE)
    expect(warm.start_type, StartType.WARM)
    with times.measure("template", "first command"):
        expect(warm.run(COMMAND).stdout, "42\n")
    wait_until_warm(client, POOL, SIZE)
    times.since(claimed, "template", "refill after the warm start")
    warm.delete()
    client.delete_pool(POOL)
    client.delete_template(TEMPLATE)


def by_template_in_typescript(times: Times) -> None:
    """Run the example of the TypeScript client. Its last line contains its times as JSON."""
    print("\n# TypeScript: a template, a pool, and sandboxes by templateName", flush=True)
    last = ""
    with subprocess.Popen(["node", str(TYPESCRIPT)], stdout=subprocess.PIPE, text=True) as example:
        assert example.stdout is not None
        for line in example.stdout:
            last = line
            if not line.startswith("{"):
                print(f"    {line.rstrip()}", flush=True)
    expect(example.returncode, 0)
    measured = json.loads(last)
    for key, step in TYPESCRIPT_TIMES.items():
        times.record("TypeScript", step, measured[key])


def main() -> int:
    """Run the demo and print the table. Return 1 if a step failed."""
    times = Times()
    try:
        with SandboxClient() as client:
            by_pool_id(client, times)
            by_template(client, times)
            by_template_in_typescript(times)
    except (DemoFailed, SandpoolError) as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
        return 1
    print(f"\n{times.table()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
