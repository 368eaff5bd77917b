"""The tables: schema only. Rows are read and written through Core and mapped in `rows`; they never leave this package.

Every row has a `namespace`. Times are whole microseconds since 1970 UTC in the database and aware datetimes outside.
Deleted pools and templates keep their row (`delete_time`) until `purge`.
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
    false,
    text,
)
from sqlmodel import Field, SQLModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def utc_time(microseconds: int) -> datetime:
    """The moment so many microseconds after the beginning of 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime, kept as whole microseconds since 1970 UTC: exact, sortable and alike in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To the database. A naive datetime is a bug and raises `TypeError`."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """From the database, in UTC."""
        return None if value is None else utc_time(value)


# Identifiers, names and request keys are compared and sorted byte by byte wherever they are kept.
_KEY = String().with_variant(String(collation="C"), "postgresql")


# Columns that came after the first rows have a default in the database.
_ZERO: dict[str, Any] = {"server_default": text("0")}
_FALSE: dict[str, Any] = {"server_default": false()}
_EMPTY: dict[str, Any] = {"server_default": text("''")}
_MISSING: dict[str, Any] = {"server_default": "missing"}


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


class _Row(SQLModel):
    metadata: ClassVar[MetaData] = MetaData()


class MetaRow(_Row, table=True):
    """Facts about this database, such as the id of its server."""

    __tablename__ = "meta"
    namespace: str = Field(sa_type=_KEY, primary_key=True)
    key: str = Field(sa_type=_KEY, primary_key=True)
    value: str


class RequestRow(_Row, table=True):
    """A request that was answered: which resource it was about. Claims are kept on their members instead."""

    __tablename__ = "requests"
    __table_args__ = (Index("ix_requests_create_time", "create_time"),)
    namespace: str = Field(sa_type=_KEY, primary_key=True)
    method: str = Field(sa_type=_KEY, primary_key=True)
    request_id: str = Field(sa_type=_KEY, primary_key=True)
    fingerprint: str
    resource_id: str = Field(sa_type=_KEY)
    create_time: datetime = Field(sa_type=UtcTime)


class TemplateRow(_Row, table=True):
    """A template, living or deleted."""

    __tablename__ = "templates"
    __table_args__ = (
        _partial("uq_templates_name", "namespace", "name", where="delete_time IS NULL AND name != ''", unique=True),
        Index("ix_templates_list", "namespace", "id"),
    )
    id: str = Field(sa_type=_KEY, primary_key=True)
    namespace: str = Field(sa_type=_KEY)
    name: str = Field(sa_type=_KEY)
    spec: dict[str, Any] = Field(sa_type=JSON)
    timeout_secs: int
    version: int
    create_time: datetime = Field(sa_type=UtcTime)
    update_time: datetime = Field(sa_type=UtcTime)
    delete_time: datetime | None = Field(sa_type=UtcTime)


class PoolRow(_Row, table=True):
    """A pool, living or deleted. `spec`, `timeout_secs` and `template_name` are what is in force now.

    `spec_digest` is the pool's `member_digest()`: what a member must have been made of to be handed out.
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
    timeout_secs: int
    own_timeout_secs: int | None
    warm_containers: int
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
    pull_policy: str = Field(sa_column_kwargs=_MISSING)
    image_check_secs: int = Field(sa_column_kwargs=_ZERO)
    max_age_secs: int = Field(sa_column_kwargs=_ZERO)
    drain: bool = Field(sa_column_kwargs=_FALSE)
    image_digest: str = Field(sa_column_kwargs=_EMPTY)
    image_check_time: datetime | None = Field(sa_type=UtcTime)


class MemberRow(_Row, table=True):
    """A member; with a `claim_time` it is a sandbox. `pool_id` and `template_id` are NULL where there is none.

    `spec_digest` is the pool's of when the member was made, and without a pool that of `spec`.
    """

    __tablename__ = "members"
    __table_args__ = (
        # The claim, counting, the planner's snapshot: all begin with a state. Rows that are gone are out of their way.
        Index("ix_members_state", "state", "pool_id", "spec_digest", "id"),
        Index("ix_members_list", "namespace", "id"),
        # For the foreign keys, and lists by template and pool; a claim does not touch these.
        Index("ix_members_pool", "pool_id"),
        Index("ix_members_template", "template_id"),
        _partial(
            "uq_members_name",
            "namespace",
            "name",
            where="state IN ('starting', 'active') AND name != ''",
            unique=True,
        ),
        _partial("ix_members_name", "namespace", "name", where="name != ''"),
        _partial("uq_members_request", "namespace", "request_id", where="request_id != ''", unique=True),
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
    timeout_secs: int
    expire_time: datetime | None = Field(sa_type=UtcTime)
    start: str | None
    name: str = Field(sa_type=_KEY)
    labels: dict[str, str] = Field(sa_type=JSON, sa_column_kwargs={"name": "metadata"})
    request_id: str = Field(sa_type=_KEY)
    request_fingerprint: str
    start_secs: float | None
    end_reason: str | None
    end_time: datetime | None = Field(sa_type=UtcTime)
    end_message: str
    end_exit_code: int | None
    gone_time: datetime | None = Field(sa_type=UtcTime)
    pull_policy: str = Field(sa_column_kwargs=_MISSING)


class SecretRow(_Row, table=True):
    """A secret. `ciphertext` is whatever the caller made of its value; nothing here can read it."""

    __tablename__ = "secrets"
    namespace: str = Field(sa_type=_KEY, primary_key=True)
    name: str = Field(sa_type=_KEY, primary_key=True)
    ciphertext: bytes = Field(sa_type=LargeBinary)
    create_time: datetime = Field(sa_type=UtcTime)
    update_time: datetime = Field(sa_type=UtcTime)


class ExposedPortRow(_Row, table=True):
    """A port of a sandbox that the web port serves. It goes with its member's row."""

    __tablename__ = "exposed_ports"
    namespace: str = Field(sa_type=_KEY)
    member_id: str = Field(sa_type=_KEY, primary_key=True, foreign_key="members.id", ondelete="CASCADE")
    port: int = Field(primary_key=True)
    create_time: datetime = Field(sa_type=UtcTime)


METADATA: MetaData = _Row.metadata
META: Table = METADATA.tables["meta"]
REQUESTS: Table = METADATA.tables["requests"]
TEMPLATES: Table = METADATA.tables["templates"]
POOLS: Table = METADATA.tables["pools"]
MEMBERS: Table = METADATA.tables["members"]
SECRETS: Table = METADATA.tables["secrets"]
EXPOSED_PORTS: Table = METADATA.tables["exposed_ports"]
