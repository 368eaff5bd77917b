"""What callers ask for, before it meets what is stored: fields that were not given are None, or UNSET in an update."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum

from sandpool_server.domain.model import PullPolicy


class Unset(Enum):
    """The one value that says: leave this field as it is."""

    UNSET = "unset"


UNSET = Unset.UNSET


@dataclass(frozen=True, slots=True)
class SpecFields:
    """The fields of a container's specification, None where not given."""

    image: str | None = None
    cpus: float | None = None
    memory_mb: int | None = None
    ephemeral_disk_mb: int | None = None
    secret_names: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    readiness_command: tuple[str, ...] = ()
    readiness_interval_secs: float | None = None
    readiness_timeout_secs: float | None = None
    readiness_retries: int | None = None


@dataclass(frozen=True, slots=True)
class NewPool:
    """A pool to create; `spec.image` or `template_name` is given, not both."""

    spec: SpecFields = field(default_factory=SpecFields)
    template_name: str = ""
    name: str = ""
    warm_containers: int = 0
    max_containers: int | None = None
    timeout_secs: int | None = None
    paused: bool = False
    pull_policy: PullPolicy = PullPolicy.MISSING
    image_check_secs: int = 0
    max_age_secs: int = 0
    drain: bool = False


@dataclass(frozen=True, slots=True)
class NewTemplate:
    """A template to create; `spec.image` is given."""

    name: str
    spec: SpecFields
    timeout_secs: int = 0


class WhenEmpty(Enum):
    """What a creation does when no member is ready."""

    START_COLD = "start_cold"
    WAIT = "wait"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class NewSandbox:
    """A sandbox to create; one of `pool_id`, `template_name` (each an id or a name) and `spec.image` is given."""

    pool_id: str = ""
    template_name: str = ""
    spec: SpecFields = field(default_factory=SpecFields)
    timeout_secs: int | None = None
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    """For this sandbox alone, over that of its pool or template. With an image it is empty: there `spec.env` has it."""
    when_empty: WhenEmpty = WhenEmpty.START_COLD
    wait_secs: float = 30.0


@dataclass(frozen=True, slots=True)
class SpecChanges:
    """Changes of a specification. None, in every kind of change, means: back to the default."""

    image: str | Unset | None = UNSET
    cpus: float | Unset | None = UNSET
    memory_mb: int | Unset | None = UNSET
    ephemeral_disk_mb: int | Unset | None = UNSET
    secret_names: tuple[str, ...] | Unset | None = UNSET
    entrypoint: tuple[str, ...] | Unset | None = UNSET
    env: tuple[tuple[str, str], ...] | Unset | None = UNSET
    readiness_command: tuple[str, ...] | Unset | None = UNSET
    readiness_interval_secs: float | Unset | None = UNSET
    readiness_timeout_secs: float | Unset | None = UNSET
    readiness_retries: int | Unset | None = UNSET

    def given(self) -> dict[str, object]:
        """The fields to change, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not UNSET}


@dataclass(frozen=True, slots=True)
class PoolChanges:
    """Changes of a pool."""

    spec: SpecChanges = field(default_factory=SpecChanges)
    name: str | Unset | None = UNSET
    warm_containers: int | Unset | None = UNSET
    max_containers: int | Unset | None = UNSET
    timeout_secs: int | Unset | None = UNSET
    paused: bool | Unset | None = UNSET
    pull_policy: PullPolicy | Unset | None = UNSET
    image_check_secs: int | Unset | None = UNSET
    max_age_secs: int | Unset | None = UNSET
    drain: bool | Unset | None = UNSET


@dataclass(frozen=True, slots=True)
class TemplateChanges:
    """Changes of a template."""

    spec: SpecChanges = field(default_factory=SpecChanges)
    name: str | Unset | None = UNSET
    timeout_secs: int | Unset | None = UNSET


@dataclass(frozen=True, slots=True)
class SandboxChanges:
    """Changes of a sandbox."""

    name: str | Unset | None = UNSET
    metadata: Mapping[str, str] | Unset | None = UNSET
    timeout_secs: int | Unset | None = UNSET


class WatchEvent(Enum):
    """What a message of a watch tells."""

    PRESENT = "present"
    CHANGED = "changed"
    DELETED = "deleted"
    BOOKMARK = "bookmark"
    """All that was there at the beginning has been told."""
