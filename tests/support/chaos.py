"""Callers who go on whatever becomes of the server, and who write down what they were told."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sandpool import QuotaExceededError, Sandbox, SandboxClient, SandboxConnectionError, SandpoolError

TAG = "tag"
"""The key in a sandbox's metadata that says which creation it came from."""

ANSWERED = "answered"

_LOG = "/tmp/commands"


@dataclass
class Told:
    """A sandbox that a caller was told of.

    `deleted` is True once a deletion was answered, None when one was sent and not answered. `answered` and `unanswered`
    are the commands, each of which writes its number into a file of the sandbox.
    """

    sandbox_id: str
    deleted: bool | None = False
    answered: list[int] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)

    def check_commands(self, sandbox: Sandbox) -> None:
        """Each answered command has run once; the others once or never."""
        found = Counter(sandbox.run(f"cat {_LOG} || true").stdout.split())
        known = {str(number) for number in (*self.answered, *self.unanswered)}
        assert found.keys() <= known
        assert all(found[str(number)] == 1 for number in self.answered), f"{found}, answered: {self.answered}"
        assert all(count == 1 for count in found.values()), f"run twice: {found}"


@dataclass
class Ledger:
    """What all callers were told. `unanswered_tags` are creations of which nobody knows what came."""

    told: dict[str, Told] = field(default_factory=dict)
    unanswered_tags: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Condition = field(default_factory=threading.Condition)

    def note(self, call: str, outcome: str) -> None:
        """Count a call."""
        with self.lock:
            self.calls[f"{call} {outcome}"] += 1
            self.calls[outcome] += 1
            self.lock.notify_all()

    def wait_for_answers(self, more: int, seconds: float) -> None:
        """Return after so many more answered calls, or that much time."""
        with self.lock:
            wanted = self.calls[ANSWERED] + more
            self.lock.wait_for(lambda: self.calls[ANSWERED] >= wanted, seconds)

    def living(self) -> list[Told]:
        """Those that must be there."""
        return [told for told in self.told.values() if told.deleted is False]


class Caller:
    """Creates, uses, changes and deletes sandboxes until `stop` is set, by the dice of a seed."""

    def __init__(
        self, number: int, seed: int, address: str, pools: list[str], image: str, ledger: Ledger, stop: threading.Event
    ) -> None:
        self._number = number
        self._dice = random.Random(seed * 1000 + number)
        self._address = address
        self._pools = pools
        self._image = image
        self._ledger = ledger
        self._stop = stop
        self._mine: list[Told] = []
        self._count = 0

    def work(self) -> None:
        """Call one after the other. Refusals that say `not now` are a part of it; anything else is written down."""
        with SandboxClient(self._address, timeout=20) as client:
            while not self._stop.is_set():
                step = self._next_step()
                try:
                    step(client)
                    outcome = ANSWERED
                except (SandboxConnectionError, QuotaExceededError) as error:
                    outcome = type(error).__name__
                except SandpoolError as error:
                    outcome = "wrong"
                    self._ledger.wrong.append(f"{step.__name__}: {type(error).__name__} {error.reason}: {error}")
                self._ledger.note(step.__name__, outcome)

    def _next_step(self) -> Callable[[SandboxClient], None]:
        if not self._mine or (len(self._mine) < 4 and self._dice.random() < 0.35):
            return self._create
        return self._dice.choices([self._command, self._update, self._delete, self._resize], [4, 2, 3, 1])[0]

    def _pick(self) -> Told:
        return self._dice.choice(self._mine)

    def _create(self, client: SandboxClient) -> None:
        self._count += 1
        tag = f"{self._number}-{self._count}"
        with self._ledger.lock:
            self._ledger.unanswered_tags.add(tag)
        try:
            if self._dice.random() < 0.15:
                sandbox = client.create(image=self._image, metadata={TAG: tag}, timeout=30)
            else:
                sandbox = client.create(pool_id=self._dice.choice(self._pools), metadata={TAG: tag}, timeout=30)
        except QuotaExceededError:
            with self._ledger.lock:
                self._ledger.unanswered_tags.discard(tag)  # an answer, too: there is none
            raise
        told = Told(sandbox.sandbox_id)
        self._mine.append(told)
        with self._ledger.lock:
            self._ledger.unanswered_tags.discard(tag)
            if sandbox.sandbox_id in self._ledger.told:
                self._ledger.wrong.append(f"told twice of {sandbox.sandbox_id}")
            self._ledger.told[sandbox.sandbox_id] = told

    def _command(self, client: SandboxClient) -> None:
        told = self._pick()
        self._count += 1
        told.unanswered.append(self._count)
        if client.get_sandbox(told.sandbox_id).run(f"echo {self._count} >> {_LOG}").success:
            told.unanswered.remove(self._count)
            told.answered.append(self._count)
        else:
            self._ledger.wrong.append(f"a command failed in {told.sandbox_id}")

    def _update(self, client: SandboxClient) -> None:
        told = self._pick()
        self._count += 1
        client.update_sandbox(told.sandbox_id, timeout_secs=10_000 + self._count)

    def _delete(self, client: SandboxClient) -> None:
        told = self._pick()
        self._mine.remove(told)
        told.deleted = None
        client.get_sandbox(told.sandbox_id).delete()
        told.deleted = True

    def _resize(self, client: SandboxClient) -> None:
        client.update_pool(self._dice.choice(self._pools), warm_containers=self._dice.randint(1, 4))
