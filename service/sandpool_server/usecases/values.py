"""The arguments of the use cases.

In arguments of a creation, None means that the caller did not set the field. In arguments of an update, UNSET means
this.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Unset(Enum):
    """The type of `UNSET`, which means: do not change this field."""

    UNSET = "unset"


UNSET = Unset.UNSET


SpecFields = Mapping[str, object]
"""The fields of a specification that a request sets, by name, with the values of `ContainerSpec`.

In an update, None stands for the default.
"""


@dataclass(frozen=True, slots=True)
class NewPool:
    """A pool to create. Exactly one of `spec` and `template_name` is set."""

    spec: SpecFields = field(default_factory=dict)
    template_name: str = ""
    name: str = ""
    warm_containers: int | None = None
    max_containers: int | None = None
    timeout_secs: float | None = None
    paused: bool = False
    image_refresh_interval_secs: float = 0.0
    warm_ttl_secs: float = 0.0
    drained: bool = False


@dataclass(frozen=True, slots=True)
class NewTemplate:
    """A template to create. `spec` contains an image."""

    name: str
    spec: SpecFields
    timeout_secs: float = 0


class WhenEmpty(Enum):
    """The behaviour of a creation when the pool has no warm instance."""

    START_COLD = "start_cold"
    WAIT = "wait"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class NewSandbox:
    """A sandbox to create. Exactly one of `pool_id`, `template_name` (each an id or a name) and `spec` is set."""

    pool_id: str = ""
    template_name: str = ""
    spec: SpecFields = field(default_factory=dict)
    timeout_secs: float | None = None
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    """Additional variables of this sandbox, which take precedence over those of the specification."""
    when_empty: WhenEmpty = WhenEmpty.START_COLD
    queue_timeout_secs: float = 30.0


@dataclass(frozen=True, slots=True)
class PoolChanges:
    """Changes of a pool."""

    spec: SpecFields = field(default_factory=dict)
    name: str | Unset | None = UNSET
    warm_containers: int | Unset | None = UNSET
    max_containers: int | Unset | None = UNSET
    timeout_secs: float | Unset | None = UNSET
    paused: bool | Unset | None = UNSET
    image_refresh_interval_secs: float | Unset | None = UNSET
    warm_ttl_secs: float | Unset | None = UNSET
    drained: bool | Unset | None = UNSET


@dataclass(frozen=True, slots=True)
class TemplateChanges:
    """Changes of a template."""

    spec: SpecFields = field(default_factory=dict)
    name: str | Unset | None = UNSET
    timeout_secs: float | Unset | None = UNSET


@dataclass(frozen=True, slots=True)
class SandboxChanges:
    """Changes of a sandbox."""

    name: str | Unset | None = UNSET
    metadata: Mapping[str, str] | Unset | None = UNSET
    timeout_secs: float | Unset | None = UNSET


class WatchEvent(Enum):
    """The type of a message of a watch."""

    CURRENT = "current"
    CHANGED = "changed"
    DELETED = "deleted"
    BOOKMARK = "bookmark"
    """All pools that existed at the start of the watch have been reported."""
