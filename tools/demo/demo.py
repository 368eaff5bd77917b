"""Both styles of using a pool, timed, against the server that SANDPOOL_ADDRESS names.

`make demo` starts that server, on an engine with the image, and removes everything afterwards.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandpool import Pool, SandboxClient, SandboxStart, SandpoolError

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
    "fillMs": "fill 2 from empty",
    "warmStartMs": "warm start",
    "firstCommandMs": "first command",
    "refillMs": "refill after the warm start",
}


class DemoFailed(Exception):
    """Something was not as the documentation promises."""


class Times:
    """Measured times by what was measured, in the order of the table."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, float]] = []

    @contextmanager
    def measure(self, style: str, what: str) -> Iterator[None]:
        """Time the block, and say it at once."""
        started = time.perf_counter()
        yield
        self.since(started, style, what)

    def since(self, started: float, style: str, what: str) -> None:
        """Note the time since `started`, a value of time.perf_counter(), and say it."""
        milliseconds = (time.perf_counter() - started) * 1000
        self.note(style, what, milliseconds)
        print(f"    {what}: {milliseconds:,.1f} ms", flush=True)

    def note(self, style: str, what: str, milliseconds: float) -> None:
        """Note a time that someone else has measured."""
        self._rows.append((style, what, milliseconds))

    def table(self) -> str:
        """All of them, one line each."""
        lines = [f"{'style':<10} {'what':<38} {'ms':>10}", "-" * 60]
        lines += [f"{style:<10} {what:<38} {ms:>10,.1f}" for style, what, ms in self._rows]
        return "\n".join(lines)


def wait_filled(client: SandboxClient, pool: Pool, warm: int) -> None:
    """Watch the pool, as it fills, until that many are ready."""
    seen = -1
    for event in client.watch_pools([pool.pool_id], timeout=FILL_SECONDS):
        status = event.pool.status
        if status.last_error is not None and status.last_error.consecutive_failures > 0:
            raise DemoFailed(f"the pool does not fill: {status.last_error.message}")
        if status.warm != seen:
            seen = status.warm
            print(f"    {seen} of {warm} warm, {status.creating} being created", flush=True)
        if seen >= warm:
            return
    raise DemoFailed("the watch of the pool ended before it was full")


def expect(what: object, wanted: object) -> None:
    """Stop when an answer is not the right one."""
    if what != wanted:
        raise DemoFailed(f"got {what!r} instead of {wanted!r}")


def by_pool_id(client: SandboxClient, times: Times) -> None:
    """A pool with a specification of its own; sandboxes by its id."""
    print(f"\n# A pool of {WARM} warm containers of {IMAGE}; sandboxes by pool_id")
    pool = client.create_pool(image=IMAGE, warm_containers=WARM)
    print(f"    {pool.pool_id}")
    with times.measure("pool_id", f"fill {WARM} from empty"):
        wait_filled(client, pool, WARM)
    claimed = time.perf_counter()
    with times.measure("pool_id", "warm start"):
        sandbox = client.create(pool_id=pool.pool_id)
    expect(sandbox.start, SandboxStart.WARM)
    with times.measure("pool_id", "first command"):
        result = sandbox.run(COMMAND)
    expect((result.stdout, result.exit_code), ("42\n", 0))
    print(f"    {COMMAND} said {result.stdout.strip()} in {sandbox.sandbox_id}")
    wait_filled(client, pool, WARM)
    times.since(claimed, "pool_id", "refill after the warm start")
    sandbox.terminate()
    client.delete_pool(pool.pool_id)


def by_template(client: SandboxClient, times: Times) -> None:
    """A template, a pool that keeps it warm, sandboxes by the template's name alone."""
    print(f"\n# A template; a pool of {SIZE} of it; sandboxes by template_name")
    client.create_template(TEMPLATE, IMAGE)
    with times.measure("template", "cold start (no pool yet)"):
        cold = client.create_sandbox(template_name=TEMPLATE)
    expect(cold.start, SandboxStart.COLD)
    with times.measure("template", "first command after the cold start"):
        expect(cold.run(COMMAND).stdout, "42\n")
    cold.terminate()
    pool = client.create_pool(name=POOL, template_name=TEMPLATE, size=SIZE)
    with times.measure("template", f"fill {SIZE} from empty"):
        wait_filled(client, pool, SIZE)
    claimed = time.perf_counter()
    with times.measure("template", "warm start"):
        warm = client.create_sandbox(template_name=TEMPLATE)
    expect(warm.start, SandboxStart.WARM)
    with times.measure("template", "first command"):
        expect(warm.run(COMMAND).stdout, "42\n")
    wait_filled(client, pool, SIZE)
    times.since(claimed, "template", "refill after the warm start")
    warm.terminate()
    client.delete_pool(POOL)
    client.delete_template(TEMPLATE)


def by_template_in_typescript(times: Times) -> None:
    """The same style from Node: the client's own example, whose last line is its times as JSON."""
    print("\n# The template style in TypeScript", flush=True)
    last = ""
    with subprocess.Popen(["node", str(TYPESCRIPT)], stdout=subprocess.PIPE, text=True) as example:
        assert example.stdout is not None
        for line in example.stdout:
            last = line
            if not line.startswith("{"):
                print(f"    {line.rstrip()}", flush=True)
    expect(example.returncode, 0)
    measured = json.loads(last)
    for key, what in TYPESCRIPT_TIMES.items():
        times.note("TypeScript", what, measured[key])


def main() -> int:
    """Run the flows and print the table; 1 when something was not as promised."""
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
