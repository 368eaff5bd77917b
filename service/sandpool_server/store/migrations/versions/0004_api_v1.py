"""The schema of API v1: tables and columns with the names of the contract, specifications without default values.

Every table of resources is rebuilt, because SQLite cannot change the type of a column. The pull policy and the
readiness probe move into the JSON document of the specification. The digests are those of `ContainerSpec.digest`, so no
container becomes outdated by the upgrade.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_OLD_INDEXES = {
    "templates": ("uq_templates_name", "ix_templates_list"),
    "pools": ("uq_pools_name", "ix_pools_list", "ix_pools_template"),
    "members": (
        "ix_members_state",
        "ix_members_list",
        "ix_members_pool",
        "ix_members_template",
        "uq_members_name",
        "ix_members_name",
        "uq_members_request",
    ),
}
_DEFAULTS: dict[str, Any] = {
    "cpus": 1.0,
    "memory_mb": 512,
    "ephemeral_disk_mb": 1024,
    "env": [],
    "entrypoint": [],
    "secret_names": [],
}
_PROBE = {
    "readiness_interval_secs": ("interval_secs", 0.5),
    "readiness_timeout_secs": ("timeout_secs", 5.0),
    "readiness_retries": ("failure_threshold", 20),
}
_BATCH = 1000


def upgrade() -> None:
    """Rename the old tables, create the new ones, copy the rows, drop the old tables."""
    for table, indexes in _OLD_INDEXES.items():
        for index in indexes:
            op.drop_index(index, table)
    for table in ("templates", "pools", "members", "exposed_ports"):
        op.rename_table(table, f"old_{table}")
    old = {
        name: sa.Table(f"old_{name}", sa.MetaData(), autoload_with=op.get_bind(), resolve_fks=False)
        for name in ("templates", "pools", "members", "exposed_ports")
    }
    tables = {
        "templates": _templates(),
        "pools": _pools(),
        "instances": _instances(),
        "exposed_ports": _exposed_ports(),
    }
    _copy(old["templates"], tables["templates"], _template)
    _copy(old["pools"], tables["pools"], _pool)
    _copy(old["members"], tables["instances"], _instance)
    _copy(old["exposed_ports"], tables["exposed_ports"], _exposed_port)
    for name in ("exposed_ports", "members", "pools", "templates"):
        op.drop_table(f"old_{name}")
    _create_indexes()


def downgrade() -> None:
    """Not supported: restore the backup that was made before the upgrade."""
    raise RuntimeError("schema 0004 cannot be downgraded; restore the database from a backup")


def _copy(old: sa.Table, new: sa.Table, convert: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Copy all rows in pages: no cursor is open while the same connection writes."""
    connection = op.get_bind()
    key = old.primary_key.columns.values()
    after: tuple[Any, ...] | None = None
    while True:
        query = sa.select(old).order_by(*key).limit(_BATCH)
        if after is not None:
            query = query.where(sa.tuple_(*key) > sa.tuple_(*after))
        page = connection.execute(query).mappings().all()
        if not page:
            return
        after = tuple(page[-1][column.name] for column in key)
        connection.execute(sa.insert(new), [convert(dict(row)) for row in page])


def _template(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "spec": _spec(row["spec"])}


def _pool(row: dict[str, Any]) -> dict[str, Any]:
    pull_policy = row.pop("pull_policy")
    spec = _spec(row["spec"], pull_policy)
    digest = _digest(spec)
    if row["image_check_secs"] and row["image_digest"]:
        digest = hashlib.sha256(f"{digest} {row['image_digest']}".encode()).hexdigest()[:16]
    _DIGESTS[row["spec_digest"]] = digest
    reason = row["failure_reason"]
    return {
        **row,
        "spec": spec,
        "spec_digest": digest,
        "failure_reason": "readiness_timeout" if reason == "not_ready" else reason,
        "drained": row.pop("drain"),
        "image_refresh_interval_secs": row.pop("image_check_secs"),
        "warm_ttl_secs": row.pop("max_age_secs"),
    }


def _instance(row: dict[str, Any]) -> dict[str, Any]:
    spec = _spec(row["spec"], row.pop("pull_policy"))
    state = row["state"]
    return {
        **row,
        "spec": spec,
        "spec_digest": _DIGESTS.get(row["spec_digest"]) or _digest(spec),
        "state": "removed" if state == "gone" else state,
        "start_type": row.pop("start"),
        "termination_reason": row.pop("end_reason"),
        "termination_message": row.pop("end_message"),
        "exit_code": row.pop("end_exit_code"),
        "removed_time": row.pop("gone_time"),
    }


def _exposed_port(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "instance_id": row.pop("member_id")}


_DIGESTS: dict[str, str] = {}
"""New digests of pools by their old ones. Instances that a pool may assign keep matching it."""


def _spec(old: dict[str, Any], pull_policy: str = "missing") -> dict[str, Any]:
    """Return the JSON document as `ContainerSpec.to_json` wrote it at this step."""
    new = {name: value for name, value in old.items() if name in _DEFAULTS and value != _DEFAULTS[name]}
    new["image"] = old["image"]
    if pull_policy != "missing":
        new["pull_policy"] = pull_policy
    if old.get("readiness_command"):
        given = {new_name: old.get(name, default) for name, (new_name, default) in _PROBE.items()}
        defaults = dict(_PROBE.values())
        new["readiness_probe"] = {
            "command": old["readiness_command"],
            **{name: value for name, value in given.items() if value != defaults[name]},
        }
    return new


def _digest(spec: dict[str, Any]) -> str:
    """Return the digest as `ContainerSpec.digest` computed it at this step."""
    content = {name: value for name, value in spec.items() if name != "pull_policy"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def _templates() -> sa.Table:
    return op.create_table(
        "templates",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("namespace", _KEY, nullable=False),
        sa.Column("name", _KEY, nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("timeout_secs", sa.Float(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("delete_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )


def _pools() -> sa.Table:
    return op.create_table(
        "pools",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("namespace", _KEY, nullable=False),
        sa.Column("name", _KEY, nullable=False),
        sa.Column("template_id", _KEY, nullable=True),
        sa.Column("template_name", _KEY, nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("spec_digest", _KEY, nullable=False),
        sa.Column("timeout_secs", sa.Float(), nullable=False),
        sa.Column("own_timeout_secs", sa.Float(), nullable=True),
        sa.Column("warm_containers", sa.Integer(), nullable=True),
        sa.Column("max_containers", sa.Integer(), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("delete_time", sa.BigInteger(), nullable=True),
        sa.Column("hits", sa.BigInteger(), nullable=False),
        sa.Column("misses", sa.BigInteger(), nullable=False),
        sa.Column("failure_reason", sa.String(), nullable=True),
        sa.Column("failure_message", sa.String(), nullable=True),
        sa.Column("failure_time", sa.BigInteger(), nullable=True),
        sa.Column("failure_next_attempt_time", sa.BigInteger(), nullable=True),
        sa.Column("failure_consecutive", sa.Integer(), nullable=True),
        sa.Column("image_refresh_interval_secs", sa.Float(), nullable=False),
        sa.Column("warm_ttl_secs", sa.Float(), nullable=False),
        sa.Column("drained", sa.Boolean(), nullable=False),
        sa.Column("image_digest", sa.String(), nullable=False),
        sa.Column("image_check_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["template_id"], ["templates.id"]),
    )


def _instances() -> sa.Table:
    return op.create_table(
        "instances",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("namespace", _KEY, nullable=False),
        sa.Column("pool_id", _KEY, nullable=True),
        sa.Column("template_id", _KEY, nullable=True),
        sa.Column("template_name", _KEY, nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("spec_digest", _KEY, nullable=False),
        sa.Column("state", _KEY, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("claim_time", sa.BigInteger(), nullable=True),
        sa.Column("timeout_secs", sa.Float(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("start_type", sa.String(), nullable=True),
        sa.Column("name", _KEY, nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("request_id", _KEY, nullable=False),
        sa.Column("request_fingerprint", sa.String(), nullable=False),
        sa.Column("start_secs", sa.Float(), nullable=True),
        sa.Column("termination_reason", sa.String(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("termination_message", sa.String(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("removed_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"]),
        sa.ForeignKeyConstraint(["template_id"], ["templates.id"]),
    )


def _exposed_ports() -> sa.Table:
    return op.create_table(
        "exposed_ports",
        sa.Column("namespace", _KEY, nullable=False),
        sa.Column("instance_id", _KEY, nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "port"),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], ondelete="CASCADE"),
    )


def _create_indexes() -> None:
    op.create_index("ix_templates_list", "templates", ["namespace", "id"])
    op.create_index("ix_pools_list", "pools", ["namespace", "id"])
    op.create_index("ix_pools_template", "pools", ["template_id", "id"])
    for table in ("templates", "pools"):
        _partial(f"uq_{table}_name", table, ["namespace", "name"], "delete_time IS NULL AND name != ''", unique=True)
    op.create_index("ix_instances_state", "instances", ["state", "pool_id", "spec_digest", "id"])
    op.create_index("ix_instances_list", "instances", ["namespace", "id"])
    op.create_index("ix_instances_pool", "instances", ["pool_id"])
    op.create_index("ix_instances_template", "instances", ["template_id"])
    living = "state IN ('starting', 'active') AND name != ''"
    _partial("uq_instances_name", "instances", ["namespace", "name"], living, unique=True)
    _partial("ix_instances_name", "instances", ["namespace", "name"], "name != ''")
    _partial("uq_instances_request", "instances", ["namespace", "request_id"], "request_id != ''", unique=True)


def _partial(name: str, table: str, columns: Iterable[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, list(columns), unique=unique, sqlite_where=condition, postgresql_where=condition)
