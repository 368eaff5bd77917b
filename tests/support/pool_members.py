"""A pool's containers, as the engine has them."""

from tests.support.engine_view import EngineView


def members_of(engine: EngineView, pool_id: str) -> set[str]:
    """The ids of the members that have a container, running or not."""
    found = engine.api.containers(all=True, filters={"label": f"sandpool.pool={pool_id}"})
    return {container["Labels"]["sandpool.member"] for container in found}


def container(member_id: str) -> str:
    """The name of a member's container."""
    return f"sandpool-{member_id}"


def wait_until_no_container(engine: EngineView, pool_id: str) -> None:
    """Return once the engine has no container of the pool."""
    engine.wait_until(lambda seen: not members_of(seen, pool_id))
