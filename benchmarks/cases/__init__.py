"""What is measured: each case is a function from a `Setting` to figures; CASES has them in the order of running."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.server import Servers
from benchmarks.stats import Figure


@dataclass(frozen=True)
class Setting:
    """What a case may start: servers, and containers of an image on the bare engine."""

    servers: Servers
    image: str


Case = Callable[[Setting], list[Figure]]


def all_cases() -> dict[str, Case]:
    """The cases by name, in the order of running."""
    from benchmarks.cases.crowd import crowd
    from benchmarks.cases.files import file_throughput, small_file
    from benchmarks.cases.growth import growth
    from benchmarks.cases.member_memory import member_memory
    from benchmarks.cases.one_caller import command, first_output, warm_create
    from benchmarks.cases.python_client import python_client
    from benchmarks.cases.refill import claims_during_refill, refill_rate
    from benchmarks.cases.typescript_client import typescript_client

    cases = (
        *(warm_create, command, first_output, small_file, file_throughput),
        *(member_memory, refill_rate, claims_during_refill, crowd, python_client),
        *(typescript_client, growth),
    )
    return {case.__name__: case for case in cases}
