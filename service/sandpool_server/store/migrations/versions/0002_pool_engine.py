"""What the pool engine keeps: pull policy, looks at the image's tag, age, drain; secrets.

Specifications got fields. Those in rows written before lack them and are read with their defaults; the digests of these
rows are those of the whole specification from now on, so that no container becomes stale by the upgrade alone.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_NEW_SPEC_FIELDS: dict[str, Any] = {
    "env": [],
    "readiness_command": [],
    "readiness_interval_secs": 0.5,
    "readiness_timeout_secs": 5.0,
    "readiness_retries": 20,
}
_POOL_COLUMNS = ("pull_policy", "image_check_secs", "max_age_secs", "drain", "image_digest", "image_check_time")


def upgrade() -> None:
    """Add columns with defaults for the rows that are there, and the table of secrets."""
    op.add_column("pools", _pull_policy())
    op.add_column("pools", sa.Column("image_check_secs", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("pools", sa.Column("max_age_secs", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("pools", sa.Column("drain", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("pools", sa.Column("image_digest", sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("pools", sa.Column("image_check_time", sa.BigInteger(), nullable=True))
    op.add_column("members", _pull_policy())
    op.create_table(
        "secrets",
        sa.Column("namespace", _KEY, nullable=False),
        sa.Column("name", _KEY, nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name"),
    )
    _renew_digests(lambda spec: {**_NEW_SPEC_FIELDS, **spec})


def downgrade() -> None:
    """Drop what was added; the secrets are lost."""
    _renew_digests(lambda spec: {name: value for name, value in spec.items() if name not in _NEW_SPEC_FIELDS})
    op.drop_table("secrets")
    op.drop_column("members", "pull_policy")
    for column in _POOL_COLUMNS:
        op.drop_column("pools", column)


def _pull_policy() -> sa.Column[str]:
    return sa.Column("pull_policy", sa.String(), server_default="missing", nullable=False)


def _renew_digests(spec_then: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Give pools and members the digests of what their specifications are after this step."""
    connection = op.get_bind()
    for name in ("pools", "members"):
        table = sa.table(name, sa.column("spec", sa.JSON()), sa.column("spec_digest", sa.String()))
        specs = {row.spec_digest: row.spec for row in connection.execute(sa.select(table.c.spec_digest, table.c.spec))}
        for old, spec in specs.items():
            new = _digest(spec_then(spec))
            connection.execute(sa.update(table).where(table.c.spec_digest == old).values(spec_digest=new))


def _digest(spec: dict[str, Any]) -> str:
    """As `ContainerSpec.digest` is at this step."""
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
