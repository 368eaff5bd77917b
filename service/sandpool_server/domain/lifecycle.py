"""The lifecycle of an instance: its states and the transitions between them.

A transition that is not in `TRANSITIONS` is a bug and raises `IllegalTransition`.
"""

from enum import StrEnum

from sandpool_server.domain.errors import IllegalTransition


class InstanceState(StrEnum):
    """The state of an instance, that is of a container and its row in the database."""

    CREATING = "creating"
    """The container is being created for a pool. No caller has claimed it."""
    STARTING = "starting"
    """The container is being created for a caller who waits (cold start)."""
    WARM = "warm"
    """The container is ready and unclaimed."""
    ACTIVE = "active"
    """A caller has claimed the instance: it is a running sandbox."""
    REMOVING = "removing"
    """The container will be removed or is being removed."""
    REMOVED = "removed"
    """The container no longer exists. The row contains the reason why the sandbox terminated."""


TRANSITIONS: frozenset[tuple[InstanceState, InstanceState]] = frozenset(
    {
        (InstanceState.CREATING, InstanceState.WARM),
        (InstanceState.CREATING, InstanceState.REMOVING),
        (InstanceState.STARTING, InstanceState.ACTIVE),
        (InstanceState.STARTING, InstanceState.REMOVING),
        (InstanceState.WARM, InstanceState.ACTIVE),
        (InstanceState.WARM, InstanceState.REMOVING),
        (InstanceState.ACTIVE, InstanceState.REMOVING),
        (InstanceState.REMOVING, InstanceState.REMOVED),
    }
)

COUNTED = frozenset(InstanceState) - {InstanceState.REMOVED}
"""The states in which a container can exist. They count towards a pool's `max_containers`."""

IN_USE = frozenset({InstanceState.STARTING, InstanceState.ACTIVE})
"""The states of an instance that a caller uses."""


def check_transition(old: InstanceState, new: InstanceState) -> None:
    """Raise `IllegalTransition` if an instance must not change from the state `old` to `new`."""
    if (old, new) not in TRANSITIONS:
        raise IllegalTransition(f"an instance cannot change from {old} to {new}")
