"""The benchmarks' server with an in-memory engine."""

from benchmarks.server import Servers


def test_in_memory_server_creates_sandboxes() -> None:
    with Servers().fake() as bench:
        pool_id = bench.pool("busybox:latest", 2, refills=True)
        assert bench.create(pool_id) != bench.create(pool_id)
