"""One caller, one call after the other."""

from benchmarks.cases import Setting
from benchmarks.engine import bare_engine
from benchmarks.stats import Figure, interleaved, summarize, timed, times_faster, times_floor

SAMPLES = 40
ENGINE_STARTS = 10
COMMAND_ROUNDS = 60
COMMAND = ["/bin/echo", "hello"]


def warm_create(on: Setting) -> list[Figure]:
    """Creating a sandbox from a ready member, the agent's part included, against a no-op and the engine's start."""
    with on.servers.real() as bench, bare_engine(on.image) as engine:
        pool_id = bench.pool(on.image, SAMPLES)
        # The first call of each kind pays for connections and caches.
        bench.no_op()
        bench.create(pool_id)
        taken = interleaved(SAMPLES - 1, {"no-op": bench.no_op, "create": lambda: bench.create(pool_id)})
        bench.dissolve(pool_id)
        starts = summarize(timed(engine.create_and_start) for _ in range(ENGINE_STARTS))
    return [
        times_floor("warm create", taken["create"], "no-op", taken["no-op"], 3),
        times_faster("warm create", taken["create"], "engine create + start", starts, 100),
    ]


def command(on: Setting) -> list[Figure]:
    """A command's round trip in a running sandbox, against a no-op and the engine's exec of the same."""
    with on.servers.real() as bench, bare_engine(on.image) as engine:
        pool_id = bench.pool(on.image, 1)
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
        bench.dissolve(pool_id)
    return [
        times_floor("command round trip", taken["command"], "no-op", taken["no-op"], 10),
        times_faster("command round trip", taken["command"], "engine exec", taken["exec"], 10),
    ]
