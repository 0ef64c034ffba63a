"""The trace of a verification: the traceparent that its spans hang on.

Revision ID: 0006
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("verification", sa.Column("trace", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("verification", "trace")
