"""The figures: what is measured, against which floor, and the goal for the ratio."""

from dataclasses import dataclass

from benchmarks.engine import BareEngine
from benchmarks.server import Bench
from benchmarks.stats import Summary, interleaved, summarize, timed

SAMPLES = 40
ENGINE_STARTS = 10
COMMAND_ROUNDS = 60
COMMAND = ["/bin/echo", "hello"]


@dataclass(frozen=True)
class Figure:
    """One operation beside its floor. `ratio` is p50 over p50; `goal` says which ratio is wanted."""

    name: str
    operation: Summary
    floor_name: str
    floor: Summary
    ratio: float
    goal: str
    met: bool


def at_most(name: str, operation: Summary, floor_name: str, floor: Summary, times: float) -> Figure:
    """The operation may cost at most so many times its floor."""
    ratio = round(operation.p50_ms / floor.p50_ms, 2)
    return Figure(name, operation, floor_name, floor, ratio, f"<= {times:g} x", ratio <= times)


def faster_by(name: str, operation: Summary, floor_name: str, floor: Summary, times: float) -> Figure:
    """The operation must be at least so many times faster than what it is compared to."""
    ratio = round(floor.p50_ms / operation.p50_ms, 1)
    return Figure(name, operation, floor_name, floor, ratio, f">= {times:g} x faster", ratio >= times)


def warm_create(bench: Bench, engine: BareEngine, image: str) -> list[Figure]:
    """Creating a sandbox from a ready member, against a no-op call and against the engine's create + start."""
    pool_id = bench.full_pool(image, SAMPLES)
    created: list[str] = []
    # The first call of each kind pays for connections and caches.
    bench.no_op()
    created.append(bench.create(pool_id))
    taken = interleaved(
        SAMPLES - 1, {"no-op": bench.no_op, "warm create": lambda: created.append(bench.create(pool_id))}
    )
    bench.delete(created, pool_id)
    starts = summarize(timed(engine.create_and_start) for _ in range(ENGINE_STARTS))
    engine.remove_all()
    create = taken["warm create"]
    return [
        at_most("warm create", create, "no-op RPC", taken["no-op"], 3),
        faster_by("warm create", create, "engine create + start", starts, 100),
    ]


def command(bench: Bench, engine: BareEngine, image: str) -> list[Figure]:
    """A command's round trip in a running sandbox, against the engine's exec of the same."""
    pool_id = bench.full_pool(image, 1)
    sandbox, container = bench.create(pool_id), engine.create_and_start()
    bench.run(sandbox, COMMAND)
    engine.run(container, COMMAND)
    taken = interleaved(
        COMMAND_ROUNDS,
        {
            "no-op": bench.no_op,
            "command": lambda: bench.run(sandbox, COMMAND),
            "exec": lambda: engine.run(container, COMMAND),
        },
    )
    bench.delete([sandbox], pool_id)
    engine.remove_all()
    return [
        at_most("command round trip", taken["command"], "no-op RPC", taken["no-op"], 10),
        faster_by("command round trip", taken["command"], "engine exec", taken["exec"], 10),
    ]


CASES = {"warm_create": warm_create, "command": command}
