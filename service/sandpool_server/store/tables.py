"""The database schema. The package reads and writes rows with SQLAlchemy Core; `rows` converts them to domain values.

Every row has a `namespace`. In the database, times are integers: microseconds since 1970 in UTC. In Python they
are aware datetimes. The rows of deleted pools and templates stay until `purge`; they have a `delete_time`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    text,
)
from sqlmodel import Field, SQLModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def utc_time(microseconds: int) -> datetime:
    """Return the UTC time for a number of microseconds since the beginning of 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970 in UTC: exact, sortable and the same in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Convert a value for the database. A naive datetime is a bug and raises `TypeError`."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Convert a value from the database to a UTC datetime."""
        return None if value is None else utc_time(value)


# Identifiers, names and request keys are compared and sorted byte by byte in every database.
_KEY = String().with_variant(String(collation="C"), "postgresql")


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


class _Row(SQLModel):
    metadata: ClassVar[MetaData] = MetaData()


class MetaRow(_Row, table=True):
    """Properties of the database, such as the id of its server."""

    __tablename__ = "meta"
    namespace: str = Field(sa_type=_KEY, primary_key=True)
    key: str = Field(sa_type=_KEY, primary_key=True)
    value: str


class RequestRow(_Row, table=True):
    """An executed request with an id, and its resource. The requests of claims are in the rows of their instances."""

    __tablename__ = "requests"
    __table_args__ = (Index("ix_requests_create_time", "create_time"),)
    namespace: str = Field(sa_type=_KEY, primary_key=True)
    method: str = Field(sa_type=_KEY, primary_key=True)
    request_id: str = Field(sa_type=_KEY, primary_key=True)
    fingerprint: str
    resource_id: str = Field(sa_type=_KEY)
    create_time: datetime = Field(sa_type=UtcTime)


class TemplateRow(_Row, table=True):
    """A template, which may be deleted."""

    __tablename__ = "templates"
    __table_args__ = (
        _partial("uq_templates_name", "namespace", "name", where="delete_time IS NULL AND name != ''", unique=True),
        Index("ix_templates_list", "namespace", "id"),
    )
    id: str = Field(sa_type=_KEY, primary_key=True)
    namespace: str = Field(sa_type=_KEY)
    name: str = Field(sa_type=_KEY)
    spec: dict[str, Any] = Field(sa_type=JSON)
    timeout_secs: float
    version: int
    create_time: datetime = Field(sa_type=UtcTime)
    update_time: datetime = Field(sa_type=UtcTime)
    delete_time: datetime | None = Field(sa_type=UtcTime)


class PoolRow(_Row, table=True):
    """A pool, which may be deleted. `spec`, `timeout_secs` and `template_name` are the values in force.

    `spec_digest` is the pool's `instance_digest()`: the digest that an instance must have to be claimed.
    """

    __tablename__ = "pools"
    __table_args__ = (
        _partial("uq_pools_name", "namespace", "name", where="delete_time IS NULL AND name != ''", unique=True),
        Index("ix_pools_list", "namespace", "id"),
        Index("ix_pools_template", "template_id", "id"),
    )
    id: str = Field(sa_type=_KEY, primary_key=True)
    namespace: str = Field(sa_type=_KEY)
    name: str = Field(sa_type=_KEY)
    template_id: str | None = Field(sa_type=_KEY, foreign_key="templates.id")
    template_name: str = Field(sa_type=_KEY)
    spec: dict[str, Any] = Field(sa_type=JSON)
    spec_digest: str = Field(sa_type=_KEY)
    timeout_secs: float
    own_timeout_secs: float | None
    warm_containers: int | None
    max_containers: int | None
    paused: bool
    version: int
    create_time: datetime = Field(sa_type=UtcTime)
    update_time: datetime = Field(sa_type=UtcTime)
    delete_time: datetime | None = Field(sa_type=UtcTime)
    hits: int = Field(sa_type=BigInteger)
    misses: int = Field(sa_type=BigInteger)
    failure_reason: str | None
    failure_message: str | None
    failure_time: datetime | None = Field(sa_type=UtcTime)
    failure_next_attempt_time: datetime | None = Field(sa_type=UtcTime)
    failure_consecutive: int | None
    image_refresh_interval_secs: float
    warm_ttl_secs: float
    drained: bool
    image_digest: str
    image_check_time: datetime | None = Field(sa_type=UtcTime)


class InstanceRow(_Row, table=True):
    """An instance. With a `claim_time` it is a sandbox. `pool_id` and `template_id` can be NULL.

    `spec_digest` is the digest of the pool when the instance was created; without a pool it is the digest of `spec`.
    """

    __tablename__ = "instances"
    __table_args__ = (
        # For claims, counts and the planner's snapshots. They all filter by state and skip the REMOVED rows.
        Index("ix_instances_state", "state", "pool_id", "spec_digest", "id"),
        Index("ix_instances_list", "namespace", "id"),
        # For the foreign keys, and for lists by template and pool. A claim does not change these indexes.
        Index("ix_instances_pool", "pool_id"),
        Index("ix_instances_template", "template_id"),
        _partial(
            "uq_instances_name",
            "namespace",
            "name",
            where="state IN ('starting', 'active') AND name != ''",
            unique=True,
        ),
        _partial("ix_instances_name", "namespace", "name", where="name != ''"),
        _partial("uq_instances_request", "namespace", "request_id", where="request_id != ''", unique=True),
    )
    id: str = Field(sa_type=_KEY, primary_key=True)
    namespace: str = Field(sa_type=_KEY)
    pool_id: str | None = Field(sa_type=_KEY, foreign_key="pools.id")
    template_id: str | None = Field(sa_type=_KEY, foreign_key="templates.id")
    template_name: str = Field(sa_type=_KEY)
    spec: dict[str, Any] = Field(sa_type=JSON)
    spec_digest: str = Field(sa_type=_KEY)
    state: str = Field(sa_type=_KEY)
    version: int
    create_time: datetime = Field(sa_type=UtcTime)
    address: str
    claim_time: datetime | None = Field(sa_type=UtcTime)
    timeout_secs: float
    expire_time: datetime | None = Field(sa_type=UtcTime)
    start_type: str | None
    name: str = Field(sa_type=_KEY)
    labels: dict[str, str] = Field(sa_type=JSON, sa_column_kwargs={"name": "metadata"})
    request_id: str = Field(sa_type=_KEY)
    request_fingerprint: str
    start_secs: float | None
    termination_reason: str | None
    end_time: datetime | None = Field(sa_type=UtcTime)
    termination_message: str
    exit_code: int | None
    removed_time: datetime | None = Field(sa_type=UtcTime)


class SecretRow(_Row, table=True):
    """A secret. The caller encrypts its value; the store cannot decrypt `ciphertext`."""

    __tablename__ = "secrets"
    namespace: str = Field(sa_type=_KEY, primary_key=True)
    name: str = Field(sa_type=_KEY, primary_key=True)
    ciphertext: bytes = Field(sa_type=LargeBinary)
    create_time: datetime = Field(sa_type=UtcTime)
    update_time: datetime = Field(sa_type=UtcTime)


class ExposedPortRow(_Row, table=True):
    """An exposed port of a sandbox. It is deleted with the row of its instance."""

    __tablename__ = "exposed_ports"
    namespace: str = Field(sa_type=_KEY)
    instance_id: str = Field(sa_type=_KEY, primary_key=True, foreign_key="instances.id", ondelete="CASCADE")
    port: int = Field(primary_key=True)
    create_time: datetime = Field(sa_type=UtcTime)


METADATA: MetaData = _Row.metadata
META: Table = METADATA.tables["meta"]
REQUESTS: Table = METADATA.tables["requests"]
TEMPLATES: Table = METADATA.tables["templates"]
POOLS: Table = METADATA.tables["pools"]
INSTANCES: Table = METADATA.tables["instances"]
SECRETS: Table = METADATA.tables["secrets"]
EXPOSED_PORTS: Table = METADATA.tables["exposed_ports"]
