"""Sums kept per node, and what the pumping guard lets through.

Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

from gateway.store.columns import Moment

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_counter_since", "counter", ["since"], unique=False)
    op.create_table(
        "tally",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("verified", sa.Integer(), nullable=False),
        sa.Column("until", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("key", "node", name=op.f("pk_tally")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tally_until", "tally", ["until"], unique=False)
    op.create_table(
        "guard_pass",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("until", Moment(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_guard_pass")),
    )


def downgrade() -> None:
    op.drop_table("guard_pass")
    op.drop_index("ix_tally_until", table_name="tally")
    op.drop_table("tally")
    op.drop_index("ix_counter_since", table_name="counter")
