"""Labels of containers, including those of servers before version 1.0."""

from typing import Any

import pytest

from sandpool_server.interfaces import RuntimeEventKind
from sandpool_server.runtime import labels
from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.events import runtime_event
from sandpool_server.runtime.instances import list_instances, measure_instances, remove_instance
from sandpool_server.runtime.routes import Reach

CURRENT = {"sandpool.server": "srv", "sandpool.instance": "sbx-1"}
EARLIER = {"sandpool.server": "srv", "sandpool.member": "sbx-1"}
FILLER = {"sandpool.server": "srv", "sandpool.agent": "v1"}

both = pytest.mark.parametrize("container_labels", [CURRENT, EARLIER], ids=["current", "earlier"])


class Engine(EngineClient):
    """An engine in memory with one container of an instance, and one container that is no instance."""

    def __init__(self, container_labels: dict[str, str]) -> None:
        self.entries = [
            {"Id": "c1", "Labels": container_labels, "State": "running", "SizeRw": 7, "NetworkSettings": NETWORK},
            {"Id": "c2", "Labels": FILLER, "State": "created", "SizeRw": 9},
        ]
        self.removed: list[str] = []

    def containers(self, *_: Any, filters: dict[str, Any] | None = None, **__: Any) -> Any:
        """Return the containers that have all labels of the filter, as the engine does."""
        required = (filters or {}).get("label", [])
        required = [required] if isinstance(required, str) else required
        return [entry for entry in self.entries if all(_has(entry["Labels"], label) for label in required)]

    def inspect_container(self, container: Any) -> Any:
        assert container == "sandpool-sbx-1"
        return {"Id": "c1", "Config": {"Labels": self.entries[0]["Labels"]}, "State": {"Running": True}}

    def remove_container(self, container: Any, *_: Any, **__: Any) -> None:
        self.removed.append(container)


NETWORK = {"Networks": {"sandpool-srv": {"IPAddress": "10.0.0.2"}}}


def _has(container_labels: Any, label: str) -> bool:
    name, equals, value = label.partition("=")
    return name in container_labels and (not equals or container_labels[name] == value)


@both
def test_lists_containers_with_current_and_earlier_labels(container_labels: dict[str, str]) -> None:
    (found,) = list_instances(Engine(container_labels), "srv", Reach("direct"))
    assert (found.instance_id, found.running, found.address) == ("sbx-1", True, "10.0.0.2:10240")


@both
def test_measures_containers_with_current_and_earlier_labels(container_labels: dict[str, str]) -> None:
    assert measure_instances(Engine(container_labels), "srv") == {"sbx-1": 7}


@both
def test_removes_containers_with_current_and_earlier_labels(container_labels: dict[str, str]) -> None:
    engine = Engine(container_labels)
    assert remove_instance(engine, "srv", "sbx-1", grace_secs=0)
    assert engine.removed == ["c1"]


@both
def test_reads_events_with_current_and_earlier_labels(container_labels: dict[str, str]) -> None:
    event = runtime_event({"Action": "destroy", "Actor": {"Attributes": container_labels}})
    assert event is not None
    assert (event.kind, event.instance_id) == (RuntimeEventKind.REMOVED, "sbx-1")


@pytest.mark.parametrize(
    ("found", "server_id", "instance_id"),
    [(None, "srv", None), (CURRENT, "other", "sbx-1"), (CURRENT, "srv", "sbx-2"), (FILLER, "srv", "sbx-1")],
)
def test_ignores_objects_of_others(found: dict[str, str] | None, server_id: str, instance_id: str | None) -> None:
    assert not labels.is_ours(found, server_id, instance_id)


def test_reads_the_instance_id_from_both_labels() -> None:
    assert labels.instance_id_of(CURRENT) == labels.instance_id_of(EARLIER) == "sbx-1"
    assert labels.instance_id_of(FILLER) == labels.instance_id_of(None) == ""
