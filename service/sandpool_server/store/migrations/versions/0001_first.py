"""The first schema: pools, templates, members, requests, meta."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Make everything."""
    _make_meta_and_requests()
    _make_templates()
    _make_pools()
    _make_members()


def downgrade() -> None:
    """Drop everything."""
    for table in ("members", "pools", "templates", "requests", "meta"):
        op.drop_table(table)


def _make_meta_and_requests() -> None:
    op.create_table(
        "meta",
        sa.Column("namespace", _KEY, nullable=False),
        sa.Column("key", _KEY, nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key"),
    )
    op.create_table(
        "requests",
        sa.Column("namespace", _KEY, nullable=False),
        sa.Column("method", _KEY, nullable=False),
        sa.Column("request_id", _KEY, nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("resource_id", _KEY, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "method", "request_id"),
    )
    op.create_index("ix_requests_create_time", "requests", ["create_time"])


def _make_templates() -> None:
    op.create_table(
        "templates",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("namespace", _KEY, nullable=False),
        sa.Column("name", _KEY, nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("timeout_secs", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("delete_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_templates_list", "templates", ["namespace", "id"])
    _unique_where("uq_templates_name", "templates", ["namespace", "name"], "delete_time IS NULL AND name != ''")


def _make_pools() -> None:
    op.create_table(
        "pools",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("namespace", _KEY, nullable=False),
        sa.Column("name", _KEY, nullable=False),
        sa.Column("template_id", _KEY, nullable=True),
        sa.Column("template_name", _KEY, nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("spec_digest", _KEY, nullable=False),
        sa.Column("timeout_secs", sa.Integer(), nullable=False),
        sa.Column("own_timeout_secs", sa.Integer(), nullable=True),
        sa.Column("warm_containers", sa.Integer(), nullable=False),
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
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["template_id"], ["templates.id"]),
    )
    op.create_index("ix_pools_list", "pools", ["namespace", "id"])
    op.create_index("ix_pools_template", "pools", ["template_id", "id"])
    _unique_where("uq_pools_name", "pools", ["namespace", "name"], "delete_time IS NULL AND name != ''")


def _make_members() -> None:
    op.create_table(
        "members",
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
        sa.Column("timeout_secs", sa.Integer(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("start", sa.String(), nullable=True),
        sa.Column("name", _KEY, nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("request_id", _KEY, nullable=False),
        sa.Column("request_fingerprint", sa.String(), nullable=False),
        sa.Column("start_secs", sa.Float(), nullable=True),
        sa.Column("end_reason", sa.String(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("end_message", sa.String(), nullable=False),
        sa.Column("end_exit_code", sa.Integer(), nullable=True),
        sa.Column("gone_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"]),
        sa.ForeignKeyConstraint(["template_id"], ["templates.id"]),
    )
    op.create_index("ix_members_state", "members", ["state", "pool_id", "spec_digest", "id"])
    op.create_index("ix_members_list", "members", ["namespace", "id"])
    op.create_index("ix_members_pool", "members", ["pool_id"])
    op.create_index("ix_members_template", "members", ["template_id"])
    living = "state IN ('starting', 'active') AND name != ''"
    _unique_where("uq_members_name", "members", ["namespace", "name"], living)
    named = sa.text("name != ''")
    op.create_index("ix_members_name", "members", ["namespace", "name"], sqlite_where=named, postgresql_where=named)
    _unique_where("uq_members_request", "members", ["namespace", "request_id"], "request_id != ''")


def _unique_where(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, unique=True, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
