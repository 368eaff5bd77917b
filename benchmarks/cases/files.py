"""Files of a sandbox: throughput of large files and latency of small files."""

import io
import tarfile
from collections.abc import Callable

import grpc

from benchmarks.cases import Setting
from benchmarks.engine import BareEngine, bare_engine
from benchmarks.raw_stream import PART, raw_stream
from benchmarks.stats import Result, Summary, interleaved, times_faster, within
from tests.support.sandbox_files import SandboxFiles

SIZE = 256 << 20
ROUNDS = 3
SMALL_ROUNDS = 60
ENGINE_ROUNDS = 20
SMALL = bytes(1024)
PATH = "/tmp/measured"


def file_throughput(on: Setting) -> list[Result]:
    """Measure writing and reading a large file in parts of 64 KiB; baseline: a raw stream with as many hops."""
    with on.servers.real() as bench, raw_stream() as raw, grpc.insecure_channel(bench.address) as channel:
        pool_id = bench.pool(on.image, 1)
        files = SandboxFiles(channel, bench.create(pool_id))
        part = bytes(PART)
        works: dict[str, Callable[[], object]] = {
            "raw write": lambda: raw.write(SIZE),
            "write": lambda: files.write(PATH, (part for _ in range(SIZE // PART))),
            "raw read": lambda: raw.read(SIZE),
            "read": lambda: _drain(files),
        }
        taken = interleaved(ROUNDS, works)
        bench.dissolve(pool_id)
    return [
        _share("file write", taken["write"], "raw stream", taken["raw write"]),
        _share("file read", taken["read"], "raw stream", taken["raw read"]),
    ]


def _drain(files: SandboxFiles) -> None:
    """Read the file and discard its content."""
    size = sum(len(answer.data) for answer in files.stream("ReadFile", path=PATH))
    if size != SIZE:
        raise RuntimeError(f"received {size} of {SIZE} bytes")


def _share(name: str, measured: Summary, floor_name: str, floor: Summary) -> Result:
    """Return a result with the throughput, which must be at least half of the baseline's."""
    rate, best = (round(SIZE / (1 << 20) / (taken.p50_ms / 1000), 1) for taken in (measured, floor))
    ratio = round(rate / best, 2)
    detail = {name: measured, floor_name: floor}
    return Result(name, rate, floor_name, best, "MiB/s", ratio, ">= 0.5 x", ratio >= 0.5, detail)


def small_file(on: Setting) -> list[Result]:
    """Measure writing and reading a file of 1 KiB; baseline: the engine's archive calls."""
    with (
        on.servers.real() as bench,
        bare_engine(on.image) as engine,
        grpc.insecure_channel(bench.address) as channel,
    ):
        pool_id = bench.pool(on.image, 1)
        files, container = SandboxFiles(channel, bench.create(pool_id)), engine.create_and_start()
        archive = _archive()
        works: dict[str, Callable[[], object]] = {
            "write": lambda: files.write(PATH, SMALL),
            "read": lambda: files.read(PATH),
        }
        # Not interleaved with the sandbox calls, because the engine is still busy after the response of a call.
        taken = _warmed(SMALL_ROUNDS, works)
        calls: dict[str, Callable[[], object]] = {
            "put": lambda: engine.api.put_archive(container, "/tmp", archive),
            "get": lambda: _get(engine, container),
        }
        engines = _warmed(ENGINE_ROUNDS, calls)
        bench.dissolve(pool_id)
    return [
        within("1 KiB write", taken["write"], 5),
        within("1 KiB read", taken["read"], 5),
        times_faster("1 KiB write", taken["write"], "engine put_archive", engines["put"], 1),
        times_faster("1 KiB read", taken["read"], "engine get_archive", engines["get"], 1),
    ]


def _warmed(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, Summary]:
    """Measure the functions interleaved, after one call of each to open connections and fill caches."""
    for work in works.values():
        work()
    return interleaved(rounds, works)


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("measured")
        entry.size = len(SMALL)
        archive.addfile(entry, io.BytesIO(SMALL))
    return buffer.getvalue()


def _get(engine: BareEngine, container: str) -> bytes:
    parts, _ = engine.api.get_archive(container, PATH)
    return b"".join(parts)
