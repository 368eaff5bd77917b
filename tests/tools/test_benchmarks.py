"""What the benchmarks are made of still goes together."""

from benchmarks.server import Servers


def test_the_server_on_an_engine_in_memory_hands_out_sandboxes() -> None:
    with Servers().fake() as bench:
        pool_id = bench.pool("busybox:latest", 2, refills=True)
        assert bench.create(pool_id) != bench.create(pool_id)
