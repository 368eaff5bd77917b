"""grpc.health.v1: SERVING only while the database and the engine answer and the server is not about to stop.

An answer of Check tells more in its trailing metadata, which `grpcurl -v` shows: `sandpool-detail` is a line of facts
about the server, and of what does not answer, such as `engine=unix:///run/docker.sock; route=direct; failing=database`.
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
"""Returns if what it asks is well, else raises `Unavailable`."""

Details = Callable[[], Mapping[str, str]]
"""Facts about the server now, by their names."""

DETAIL_KEY = "sandpool-detail"
"""The key of the trailing metadata that tells them."""

_DETAIL_CHARS = 200
_ALL_DETAILS_CHARS = 2000
"""What one value and all of them may take: metadata share the 8 KiB that clients take."""

_log = structlog.stdlib.get_logger("sandpool.health")


def _no_details() -> Mapping[str, str]:
    return {}


class HealthReporter:
    """Asks the probes again and again, and answers for what they said.

    `probes` are named: `{"database": store.ping, "engine": runtime.ping}`; each has `timeout_secs`. All services share
    one status, NOT_SERVING until the first round is over. `details` is asked at each call for what to tell beside it:
    names in lower case, and values that are cut at 200 characters; it must not wait, nor tell secrets.
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
        self._failing = dict.fromkeys(self._probes, "not asked yet")
        self._changed = asyncio.Event()
        self._services = {""}  # the empty name is the server as a whole

    @property
    def serving(self) -> bool:
        """Whether all probes answered in the last round, and the server is not about to stop."""
        return not self._failing and not self._drain.begun

    @property
    def failing(self) -> Mapping[str, str]:
        """What did not answer in the last round, by the probe's name, and why."""
        return dict(self._failing)

    @property
    def detail(self) -> str:
        """The facts about the server in a line, and the names of the probes that fail; printable ASCII."""
        facts = dict(self._details())
        if self._failing:
            facts["failing"] = ",".join(self._failing)
        return "; ".join(f"{name}={_printable(value)}" for name, value in facts.items())[:_ALL_DETAILS_CHARS]

    def cover(self, services: Iterable[str]) -> None:
        """Answer for these services too."""
        self._services.update(services)

    async def run(self) -> None:
        """Refresh until the drain begins. To be run as a task of the app."""
        while not self._drain.begun:
            await self.refresh()
            await self._drain.wait(self._interval_secs)

    async def refresh(self) -> None:
        """One round of all probes at once."""
        outcomes = await asyncio.gather(*(self._ask(name, probe) for name, probe in self._probes.items()))
        failing = {name: why for name, why in outcomes if why}
        changed = failing.keys() != self._failing.keys()
        self._failing = failing
        if changed:
            _log.warning("not serving", **failing) if failing else _log.info("serving")
            self._changed.set()
            self._changed = asyncio.Event()

    async def statuses(self, service: str) -> AsyncIterator[HealthCheckResponse]:
        """The status of a service and each change of it, for ever."""
        last: HealthCheckResponse | None = None
        while True:
            changed = self._changed
            status = self.status(service)
            if status != last:
                yield status
                last = status
            await changed.wait()

    def status(self, service: str) -> HealthCheckResponse:
        """The status of a service now."""
        if service not in self._services:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        return HealthCheckResponse(
            status=HealthCheckResponse.SERVING if self.serving else HealthCheckResponse.NOT_SERVING
        )

    async def _ask(self, name: str, probe: Probe) -> tuple[str, str]:
        """The probe's name, and why it failed or nothing."""
        try:
            async with asyncio.timeout(self._timeout_secs):
                await probe()
        except TimeoutError:
            return name, f"no answer within {self._timeout_secs:g} s"
        except Unavailable as error:
            return name, error.message
        except Exception as error:
            # A bug in a probe must not end the task that reports it: what is not known to be well is not serving.
            _log.error("health probe failed unexpectedly", probe=name, exc_info=error)
            return name, "the probe failed unexpectedly; the log tells more"
        return name, ""


def _printable(value: str) -> str:
    """The value as it may stand in a header and between semicolons."""
    return re.sub(r"[^ -:<-~]", "?", value[:_DETAIL_CHARS]).strip()


class ReportedHealth(HealthServicer):
    """The health service on a reporter. Outside of `Calls`: nothing to validate, and no line in the log each second."""

    def __init__(self, reporter: HealthReporter, drain: Drain) -> None:
        self._reporter = reporter
        self._drain = drain

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """The status of one service; NOT_FOUND for one that this server does not have, as the protocol wants it."""
        status = self._reporter.status(request.service)
        if status.status == HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:200]!r}")
        if detail := self._reporter.detail:
            context.set_trailing_metadata(((DETAIL_KEY, detail),))
        return status

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:
        """The status of one service and its changes; ends with NOT_SERVING and UNAVAILABLE when the server stops."""
        try:
            async with aclosing(self._drain.until(self._reporter.statuses(request.service))) as statuses:
                async for status in statuses:
                    await context.write(status)
        except ServerStopping as error:
            await context.write(self._reporter.status(request.service))
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
