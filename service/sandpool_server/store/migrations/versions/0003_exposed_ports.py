"""Ports of sandboxes that the web port serves."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "exposed_ports",
        sa.Column("namespace", _KEY, nullable=False),
        sa.Column("member_id", _KEY, sa.ForeignKey("members.id", ondelete="CASCADE"), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("member_id", "port"),
    )


def downgrade() -> None:
    """Drop it; nothing is exposed any more."""
    op.drop_table("exposed_ports")
