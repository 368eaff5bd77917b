"""Instances for tests of the runtime."""

import random
from datetime import UTC, datetime

from sandpool_server.domain.ids import SANDBOX, new_id
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Instance
from sandpool_server.domain.spec import ContainerSpec


def make_instance(
    image: str = "busybox:latest", *, instance_id: str = "", pool_id: str = "", **spec: object
) -> Instance:
    """Return an instance in state CREATING with a new id. `spec` sets fields of its `ContainerSpec`."""
    now = datetime.now(UTC)
    return Instance(
        id=instance_id or new_id(SANDBOX, now, random.getrandbits(64)),
        namespace=DEFAULT_NAMESPACE,
        pool_id=pool_id,
        template_id="",
        template_name="",
        spec=ContainerSpec(image=image, **spec),  # type: ignore[arg-type]
        state=InstanceState.CREATING,
        version=1,
        create_time=now,
    )
