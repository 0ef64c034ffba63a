"""The trace of a verification: the traceparent that its spans hang on.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("verification", sa.Column("trace", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("verification", "trace")
