"""The life of a member: its states and the steps between them.

One enumeration and one table; whatever is not in the table is a bug and raises.
"""

from enum import StrEnum

from sandpool_server.domain.errors import IllegalTransition


class MemberState(StrEnum):
    """Where a member, a container and the row that stands for it, is in its life."""

    CREATING = "creating"
    """Being made for a pool; nobody has claimed it."""
    STARTING = "starting"
    """Being made for a caller who waits: a sandbox started cold."""
    WARM = "warm"
    """Ready and unclaimed."""
    ACTIVE = "active"
    """Claimed: a running sandbox."""
    REMOVING = "removing"
    """Its container is to be removed, or is being removed."""
    GONE = "gone"
    """Its container does not exist any more; the row tells how the sandbox ended."""


TRANSITIONS: frozenset[tuple[MemberState, MemberState]] = frozenset(
    {
        (MemberState.CREATING, MemberState.WARM),
        (MemberState.CREATING, MemberState.REMOVING),
        (MemberState.STARTING, MemberState.ACTIVE),
        (MemberState.STARTING, MemberState.REMOVING),
        (MemberState.WARM, MemberState.ACTIVE),
        (MemberState.WARM, MemberState.REMOVING),
        (MemberState.ACTIVE, MemberState.REMOVING),
        (MemberState.REMOVING, MemberState.GONE),
    }
)

COUNTED = frozenset(MemberState) - {MemberState.GONE}
"""The states that count against a pool's `max_containers`: those in which a container may exist."""

IN_USE = frozenset({MemberState.STARTING, MemberState.ACTIVE})
"""The states in which a caller relies on the member."""


def check_transition(old: MemberState, new: MemberState) -> None:
    """Raise `IllegalTransition` unless a member may go from `old` to `new`."""
    if (old, new) not in TRANSITIONS:
        raise IllegalTransition(f"a member does not go from {old} to {new}")
