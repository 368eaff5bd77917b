"""The containers of a pool on the engine."""

from tests.support.engine_view import EngineView


def instances_of(engine: EngineView, pool_id: str) -> set[str]:
    """Return the ids of the instances that have a container, running or not."""
    found = engine.api.containers(all=True, filters={"label": f"sandpool.pool={pool_id}"})
    return {container["Labels"]["sandpool.instance"] for container in found}


def container(instance_id: str) -> str:
    """Return the name of the container of an instance."""
    return f"sandpool-{instance_id}"


def wait_until_no_container(engine: EngineView, pool_id: str) -> None:
    """Return when the engine has no container of the pool."""
    engine.wait_until(lambda seen: not instances_of(seen, pool_id))
