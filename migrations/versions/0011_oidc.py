"""Operators known by an identity provider.

Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("operator", sa.Column("subject", sa.String(), nullable=True))
    op.create_index("uq_operator_subject", "operator", ["subject"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_operator_subject", table_name="operator")
    op.drop_column("operator", "subject")
