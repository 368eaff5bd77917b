"""Benchmark cases. A case is a function with a `Setting` that returns results. `all_cases` lists them in order."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.server import Servers
from benchmarks.stats import Result


@dataclass(frozen=True)
class Setting:
    """The environment of a case: servers, and the image of the containers."""

    servers: Servers
    image: str


Case = Callable[[Setting], list[Result]]


def all_cases() -> dict[str, Case]:
    """Return the cases by name, in the order in which they run."""
    from benchmarks.cases.crowd import crowd
    from benchmarks.cases.files import file_throughput, small_file
    from benchmarks.cases.growth import growth
    from benchmarks.cases.instance_memory import instance_memory
    from benchmarks.cases.one_caller import command, first_output, warm_create
    from benchmarks.cases.python_client import python_client
    from benchmarks.cases.refill import claims_during_refill, refill_rate
    from benchmarks.cases.typescript_client import typescript_client

    cases = (
        *(warm_create, command, first_output, small_file, file_throughput),
        *(instance_memory, refill_rate, claims_during_refill, crowd, python_client),
        *(typescript_client, growth),
    )
    return {case.__name__: case for case in cases}
