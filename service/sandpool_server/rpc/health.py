"""The service grpc.health.v1.

The status is SERVING if the database and the engine respond and the server is not draining.
The response of Check has trailing metadata, which `grpcurl -v` shows. `sandpool-detail` contains details of the server
and the failing probes, for example `engine=unix:///run/docker.sock; route=direct; failing=database`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing

import grpc
import structlog
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

from sandpool_server.domain.errors import Unavailable
from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.drain import Drain, ServerStopping

Probe = Callable[[], Awaitable[None]]
"""Checks a component. Raises `Unavailable` if the component fails."""

Details = Callable[[], Mapping[str, str]]
"""Returns the current details of the server by name."""

DETAIL_KEY = "sandpool-detail"
"""The key of the trailing metadata with the details."""

_DETAIL_CHARS = 200
_ALL_DETAILS_CHARS = 2000
"""Maximum length of one value and of all details. Clients accept 8 KiB of metadata in total."""

_log = structlog.stdlib.get_logger("sandpool.health")


def _no_details() -> Mapping[str, str]:
    return {}


class HealthReporter:
    """Runs the probes periodically and reports the status.

    All services have the same status. It is NOT_SERVING until all probes have run once.

    Args:
        probes: The probes by name, for example `{"database": store.ping, "engine": runtime.ping}`.
        drain: The shutdown of the server.
        interval_secs: Pause between two rounds of probes.
        timeout_secs: Time limit of each probe.
        details: Returns details for each Check response: names in lower case, with values of which 200 characters are
            reported. It must not block, and must not return secrets.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe],
        drain: Drain,
        interval_secs: float = 1.0,
        timeout_secs: float = 2.0,
        details: Details = _no_details,
    ) -> None:
        self._probes = dict(probes)
        self._drain = drain
        self._interval_secs = interval_secs
        self._timeout_secs = timeout_secs
        self._details = details
        self._failing = dict.fromkeys(self._probes, "not checked yet")
        self._changed = asyncio.Event()
        self._services = {""}  # the empty name is the server as a whole

    @property
    def serving(self) -> bool:
        """Whether all probes succeeded in the last round and the server is not draining."""
        return not self._failing and not self._drain.begun

    @property
    def failing(self) -> Mapping[str, str]:
        """Errors of the probes that failed in the last round, by probe name."""
        return dict(self._failing)

    @property
    def detail(self) -> str:
        """The details of the server and the names of the failing probes, as one line of printable ASCII."""
        facts = dict(self._details())
        if self._failing:
            facts["failing"] = ",".join(self._failing)
        return "; ".join(f"{name}={_printable(value)}" for name, value in facts.items())[:_ALL_DETAILS_CHARS]

    def cover(self, services: Iterable[str]) -> None:
        """Report the status of these services, too."""
        self._services.update(services)

    async def run(self) -> None:
        """Run the probes periodically until the drain begins. Run this method in a task."""
        while not self._drain.begun:
            await self.refresh()
            await self._drain.wait(self._interval_secs)

    async def refresh(self) -> None:
        """Run all probes concurrently and update the status."""
        outcomes = await asyncio.gather(*(self._ask(name, probe) for name, probe in self._probes.items()))
        failing = {name: why for name, why in outcomes if why}
        changed = failing.keys() != self._failing.keys()
        self._failing = failing
        if changed:
            _log.warning("not serving", **failing) if failing else _log.info("serving")
            self._changed.set()
            self._changed = asyncio.Event()

    async def statuses(self, service: str) -> AsyncIterator[HealthCheckResponse]:
        """Yield the status of a service and each change. Never ends."""
        last: HealthCheckResponse | None = None
        while True:
            changed = self._changed
            status = self.status(service)
            if status != last:
                yield status
                last = status
            await changed.wait()

    def status(self, service: str) -> HealthCheckResponse:
        """Return the current status of a service."""
        if service not in self._services:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        return HealthCheckResponse(
            status=HealthCheckResponse.SERVING if self.serving else HealthCheckResponse.NOT_SERVING
        )

    async def _ask(self, name: str, probe: Probe) -> tuple[str, str]:
        """Run a probe. Returns its name and its error, which is empty if the probe succeeded."""
        try:
            async with asyncio.timeout(self._timeout_secs):
                await probe()
        except TimeoutError:
            return name, f"no response within {self._timeout_secs:g} s"
        except Unavailable as error:
            return name, error.message
        except Exception as error:
            # A bug in a probe must not end the task. A component of unknown health counts as failing.
            _log.error("health probe failed unexpectedly", probe=name, exc_info=error)
            return name, "the probe failed unexpectedly; see the server's log"
        return name, ""


def _printable(value: str) -> str:
    """Return a value without characters that are not allowed in a header or that separate details."""
    return re.sub(r"[^ -:<-~]", "?", value[:_DETAIL_CHARS]).strip()


class ReportedHealth(HealthServicer):
    """The health service. It does not use `Calls`, because its requests need neither validation nor log messages."""

    def __init__(self, reporter: HealthReporter, drain: Drain) -> None:
        self._reporter = reporter
        self._drain = drain

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """Return the status of a service. Fails with NOT_FOUND if the service is unknown, as the protocol requires."""
        status = self._reporter.status(request.service)
        if status.status == HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"the service {request.service[:200]!r} does not exist; use a full name such as "
                "sandpool.v1.PoolService, or an empty name for the whole server",
            )
        if detail := self._reporter.detail:
            context.set_trailing_metadata(((DETAIL_KEY, detail),))
        return status

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:
        """Stream the status of a service. Ends with NOT_SERVING and the code UNAVAILABLE when the server stops."""
        try:
            async with aclosing(self._drain.until(self._reporter.statuses(request.service))) as statuses:
                async for status in statuses:
                    await context.write(status)
        except ServerStopping as error:
            await context.write(self._reporter.status(request.service))
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
