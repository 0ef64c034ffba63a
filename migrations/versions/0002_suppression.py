"""Numbers that do not take a channel.

Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

from gateway.store.columns import Moment

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "suppression",
        sa.Column("recipient_index", sa.LargeBinary(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("until", Moment(), nullable=False),
        sa.PrimaryKeyConstraint(
            "recipient_index", "channel", "account", "sender", name=op.f("pk_suppression")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_suppression_until", "suppression", ["until"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_suppression_until", table_name="suppression")
    op.drop_table("suppression")
