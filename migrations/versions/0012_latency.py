"""How long deliveries took, in fixed steps, beside a route's other counts.

Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STEPS = (2, 5, 10, 20, 30, 60, 120, 300)  # seconds
COLUMNS = (*(f"within_{step}" for step in STEPS), "slower")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column(
            "route_stat", sa.Column(name, sa.Integer(), nullable=False, server_default="0")
        )


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("route_stat", name)
