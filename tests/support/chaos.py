"""Callers that continue while the server is killed, and that record the responses of their calls."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sandpool import QuotaExceededError, Sandbox, SandboxClient, SandboxConnectionError, SandpoolError

TAG = "tag"
"""The key in the metadata of a sandbox that identifies the call that created it."""

SUCCEEDED = "succeeded"

_LOG = "/tmp/commands"


@dataclass
class KnownSandbox:
    """A sandbox that the server returned to a caller.

    `deleted` is True after a successful deletion, and None after a deletion whose response was lost. `confirmed` and
    `unconfirmed` are commands with and without a response; each command writes its number to a file of the sandbox.
    """

    sandbox_id: str
    deleted: bool | None = False
    confirmed: list[int] = field(default_factory=list)
    unconfirmed: list[int] = field(default_factory=list)

    def check_commands(self, sandbox: Sandbox) -> None:
        """Check that each confirmed command has run once, and each other command at most once."""
        found = Counter(sandbox.run(f"cat {_LOG} || true").stdout.split())
        known = {str(number) for number in (*self.confirmed, *self.unconfirmed)}
        assert found.keys() <= known
        assert all(found[str(number)] == 1 for number in self.confirmed), f"{found}, confirmed: {self.confirmed}"
        assert all(count == 1 for count in found.values()), f"a command ran twice: {found}"


@dataclass
class Ledger:
    """The responses of all callers. `unconfirmed_tags` identifies creations without a response."""

    sandboxes: dict[str, KnownSandbox] = field(default_factory=dict)
    unconfirmed_tags: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Condition = field(default_factory=threading.Condition)

    def note(self, call: str, outcome: str) -> None:
        """Count a call and its outcome."""
        with self.lock:
            self.calls[f"{call} {outcome}"] += 1
            self.calls[outcome] += 1
            self.lock.notify_all()

    def wait_for_successes(self, more: int, seconds: float) -> None:
        """Return after this number of further successful calls, or after this number of seconds."""
        with self.lock:
            target = self.calls[SUCCEEDED] + more
            self.lock.wait_for(lambda: self.calls[SUCCEEDED] >= target, seconds)

    def existing(self) -> list[KnownSandbox]:
        """Return the sandboxes that must exist."""
        return [sandbox for sandbox in self.sandboxes.values() if sandbox.deleted is False]


class Caller:
    """Creates, uses, changes and deletes sandboxes, chosen at random from a seed, until `stop` is set."""

    def __init__(
        self, number: int, seed: int, address: str, pools: list[str], image: str, ledger: Ledger, stop: threading.Event
    ) -> None:
        self._number = number
        self._random = random.Random(seed * 1000 + number)
        self._address = address
        self._pools = pools
        self._image = image
        self._ledger = ledger
        self._stop = stop
        self._mine: list[KnownSandbox] = []
        self._count = 0

    def work(self) -> None:
        """Make calls one after another. Connection and quota errors are expected; record all other errors."""
        with SandboxClient(self._address, request_timeout=20) as client:
            while not self._stop.is_set():
                step = self._next_step()
                try:
                    step(client)
                    outcome = SUCCEEDED
                except (SandboxConnectionError, QuotaExceededError) as error:
                    outcome = type(error).__name__
                except SandpoolError as error:
                    outcome = "wrong"
                    self._ledger.wrong.append(f"{step.__name__}: {type(error).__name__} {error.reason}: {error}")
                self._ledger.note(step.__name__, outcome)

    def _next_step(self) -> Callable[[SandboxClient], None]:
        if not self._mine or (len(self._mine) < 4 and self._random.random() < 0.35):
            return self._create
        return self._random.choices([self._command, self._update, self._delete, self._resize], [4, 2, 3, 1])[0]

    def _pick(self) -> KnownSandbox:
        return self._random.choice(self._mine)

    def _create(self, client: SandboxClient) -> None:
        self._count += 1
        tag = f"{self._number}-{self._count}"
        with self._ledger.lock:
            self._ledger.unconfirmed_tags.add(tag)
        try:
            if self._random.random() < 0.15:
                sandbox = client.create(image=self._image, metadata={TAG: tag}, request_timeout=30)
            else:
                sandbox = client.create(
                    pool_id=self._random.choice(self._pools), metadata={TAG: tag}, request_timeout=30
                )
        except QuotaExceededError:
            with self._ledger.lock:
                self._ledger.unconfirmed_tags.discard(tag)  # the response confirms that no sandbox was created
            raise
        known = KnownSandbox(sandbox.sandbox_id)
        self._mine.append(known)
        with self._ledger.lock:
            self._ledger.unconfirmed_tags.discard(tag)
            if sandbox.sandbox_id in self._ledger.sandboxes:
                self._ledger.wrong.append(f"the server returned {sandbox.sandbox_id} twice")
            self._ledger.sandboxes[sandbox.sandbox_id] = known

    def _command(self, client: SandboxClient) -> None:
        known = self._pick()
        self._count += 1
        known.unconfirmed.append(self._count)
        if client.get_sandbox(known.sandbox_id).run(f"echo {self._count} >> {_LOG}").success:
            known.unconfirmed.remove(self._count)
            known.confirmed.append(self._count)
        else:
            self._ledger.wrong.append(f"a command failed in {known.sandbox_id}")

    def _update(self, client: SandboxClient) -> None:
        known = self._pick()
        self._count += 1
        client.update_sandbox(known.sandbox_id, timeout_secs=10_000 + self._count)

    def _delete(self, client: SandboxClient) -> None:
        known = self._pick()
        self._mine.remove(known)
        known.deleted = None
        client.get_sandbox(known.sandbox_id).delete()
        known.deleted = True

    def _resize(self, client: SandboxClient) -> None:
        client.update_pool(self._random.choice(self._pools), warm_containers=self._random.randint(1, 4))
