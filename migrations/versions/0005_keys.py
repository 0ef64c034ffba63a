"""Keys: test or live, a rate, when last used.

Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

from gateway.store.columns import Moment

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("api_key") as batch:
        batch.add_column(sa.Column("test", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("rate", sa.Float(), nullable=True))
        batch.add_column(sa.Column("last_used_at", Moment(), nullable=True))
    with op.batch_alter_table("api_key") as batch:
        batch.alter_column("test", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("api_key") as batch:
        batch.drop_column("last_used_at")
        batch.drop_column("rate")
        batch.drop_column("test")
