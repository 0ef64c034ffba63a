"""How the routes are doing, and which of them are paused or disabled.

Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

from gateway.store.columns import Moment

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COUNTS = (
    "accepted", "refused", "unknown", "delivered", "read", "failed", "silent", "verified",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "route_stat",
        sa.Column("at", Moment(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("country", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in COUNTS),
        sa.PrimaryKeyConstraint("at", "route", "country", "node", name=op.f("pk_route_stat")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "route_state",
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("standing", sa.SmallInteger(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("probe_at", Moment(), nullable=True),
        sa.Column("opened", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("route", name=op.f("pk_route_state")),
    )


def downgrade() -> None:
    op.drop_table("route_state")
    op.drop_table("route_stat")
