"""Callers who wait in line for sandboxes: first come, first served.

The line holds places, not members. A caller at the front claims like any other; whoever leaves, served or not, leaves
nothing behind, so a caller who goes away never takes a member along.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sandpool_server.usecases.changes import ChangeHub


@dataclass(eq=False, slots=True)
class Place:
    """One caller's place: for how many sandboxes, and which pools could give them."""

    pool_ids: tuple[str, ...]
    count: int
    claiming: bool = False
    """Whether a claim of this place is under way, which may be written already before its caller hears of it."""


class WaitingLine:
    """All places, in the order of arrival. Implements `ports.Line`. Belongs to one event loop."""

    def __init__(self, changes: ChangeHub) -> None:
        self._changes = changes
        self._places: list[Place] = []

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._places)

    def waiting(self, pool_id: str) -> int:
        """For how many sandboxes callers wait; those of a template count for its oldest pool."""
        return sum(place.count for place in self._places if place.pool_ids[0] == pool_id)

    def awaited(self, pool_ids: tuple[str, ...]) -> int:
        """For how many sandboxes callers wait that one of these pools could give."""
        return sum(place.count for place in self._of(pool_ids))

    def unserved(self, pool_ids: tuple[str, ...], before: Place | None = None) -> int:
        """For how many sandboxes callers still wait, before that place or at all, that one of these pools could give.

        Those who are claiming are left out: what a claim took is missing from the pool before its caller leaves.
        """
        return sum(place.count for place in self._of(pool_ids, before) if not place.claiming)

    def is_next(self, place: Place) -> bool:
        """Whether nobody before this place could be served by one of its pools."""
        return not any(self._of(place.pool_ids, place))

    @contextmanager
    def claiming(self, place: Place) -> Iterator[None]:
        """The place's claim is under way for the length of the block."""
        place.claiming = True
        try:
            yield
        finally:
            place.claiming = False

    @contextmanager
    def join(self, pool_ids: tuple[str, ...], count: int) -> Iterator[Place]:
        """A place at the end of the line for the length of the block."""
        place = Place(pool_ids, count)
        self._places.append(place)
        self._changes.publish(frozenset(pool_ids))
        try:
            yield place
        finally:
            self._places.remove(place)
            # Those behind it move up, and the pools need fewer.
            self._changes.publish(frozenset(pool_ids))

    def _of(self, pool_ids: tuple[str, ...], before: Place | None = None) -> Iterator[Place]:
        """The places, those before the given one or all, that one of these pools could serve."""
        for place in self._places:
            if place is before:
                return
            if not set(place.pool_ids).isdisjoint(pool_ids):
                yield place
