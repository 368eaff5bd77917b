"""Members for tests of the runtime."""

import random
from datetime import UTC, datetime

from sandpool_server.domain.ids import SANDBOX, new_id
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import DEFAULT_NAMESPACE, ContainerSpec, Member


def make_member(image: str = "busybox:latest", *, member_id: str = "", pool_id: str = "", **spec: object) -> Member:
    """A member in state CREATING with a fresh id; `spec` goes to its `ContainerSpec`."""
    now = datetime.now(UTC)
    return Member(
        id=member_id or new_id(SANDBOX, now, random.getrandbits(64)),
        namespace=DEFAULT_NAMESPACE,
        pool_id=pool_id,
        template_id="",
        template_name="",
        spec=ContainerSpec(image=image, **spec),  # type: ignore[arg-type]
        state=MemberState.CREATING,
        version=1,
        create_time=now,
    )
