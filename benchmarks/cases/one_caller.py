"""One caller with sequential calls."""

import subprocess
from collections.abc import Callable

import grpc

from benchmarks.cases import Setting
from benchmarks.engine import bare_engine
from benchmarks.server import CALL_SECS
from benchmarks.stats import Result, interleaved, summarize, timed, times_faster, times_floor, within
from sandpool.v1.process_service_pb2 import ConnectProcessRequest, StartProcessRequest
from sandpool_server.gen.v1.process_service_pb2_grpc import ProcessServiceStub

SAMPLES = 40
ENGINE_STARTS = 10
COMMAND_ROUNDS = 60
COMMAND = ["/bin/echo", "hello"]


def warm_create(on: Setting) -> list[Result]:
    """Measure creating a sandbox from a warm instance, including activation; baselines: a no-op, the engine's start."""
    with on.servers.real() as bench, bare_engine(on.image) as engine:
        pool_id = bench.pool(on.image, SAMPLES)
        # First calls open connections and fill caches.
        bench.no_op()
        bench.create(pool_id)
        taken = interleaved(SAMPLES - 1, {"no-op": bench.no_op, "create": lambda: bench.create(pool_id)})
        bench.dissolve(pool_id)
        starts = summarize(timed(engine.create_and_start) for _ in range(ENGINE_STARTS))
    return [
        times_floor("warm create", taken["create"], "no-op", taken["no-op"], 3),
        times_faster("warm create", taken["create"], "engine create + start", starts, 100),
    ]


def command(on: Setting) -> list[Result]:
    """Measure running a command in a sandbox; baselines: a no-op with a fork, and the engine's exec."""
    with on.servers.real() as bench, bare_engine(on.image) as engine:
        pool_id = bench.pool(on.image, 1)
        sandbox, container = bench.create(pool_id), engine.create_and_start()
        bench.run(sandbox, COMMAND)
        engine.run(container, COMMAND)
        taken = interleaved(
            COMMAND_ROUNDS,
            {
                "no-op and fork": lambda: (bench.no_op(), subprocess.run(COMMAND, check=True, capture_output=True)),
                "command": lambda: bench.run(sandbox, COMMAND),
            },
        )
        # Not interleaved with the sandbox calls, because the engine is still busy after the response of a call.
        execs = summarize(timed(lambda: engine.run(container, COMMAND)) for _ in range(COMMAND_ROUNDS // 2))
        bench.dissolve(pool_id)
    return [
        within("command round trip", taken["command"], 4, "no-op and a fork", taken["no-op and fork"]),
        times_faster("command round trip", taken["command"], "engine exec", execs, 15),
    ]


def first_output(on: Setting) -> list[Result]:
    """Measure the time from the create request to a command's first output, with RunCommand and with ConnectProcess."""
    with on.servers.real() as bench, grpc.insecure_channel(bench.address) as channel:
        processes = ProcessServiceStub(channel)
        pool_id = bench.pool(on.image, SAMPLES)

        def by_command() -> None:
            if bench.run(bench.create(pool_id), COMMAND) != b"hello\n":
                raise RuntimeError("the command returned an unexpected output")

        def by_stream() -> None:
            start = StartProcessRequest(sandbox_id=bench.create(pool_id), argv=COMMAND)
            answers = processes.ConnectProcess(iter([ConnectProcessRequest(start=start)]), timeout=CALL_SECS)
            if next(a.event.output.data for a in answers if a.event.HasField("output")) != b"hello\n":
                raise RuntimeError("the command returned an unexpected output")

        by_command()
        by_stream()
        works: dict[str, Callable[[], object]] = {"command": by_command, "stream": by_stream}
        taken = interleaved(SAMPLES // 2 - 1, {"no-op": bench.no_op, **works})
        bench.dissolve(pool_id)
    return [
        within("create, first output", taken["command"], 8, "no-op", taken["no-op"]),
        within("create, first output by stream", taken["stream"], 8, "no-op", taken["no-op"]),
    ]
