"""Further addresses of a recipient; the locale and the sealed parameters of a verification.

Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

from gateway.store.columns import Id

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("verification", sa.Column("locale", sa.String(), nullable=True))
    op.add_column("verification", sa.Column("params_sealed", sa.LargeBinary(), nullable=True))
    op.create_table(
        "recipient",
        sa.Column("verification_id", Id(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("recipient_index", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["verification_id"],
            ["verification.id"],
            name=op.f("fk_recipient_verification_id_verification"),
        ),
        sa.PrimaryKeyConstraint("verification_id", "kind", name=op.f("pk_recipient")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_recipient_recipient_index",
        "recipient",
        ["recipient_index", "verification_id"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index("ix_recipient_recipient_index", table_name="recipient")
    op.drop_table("recipient")
    op.drop_column("verification", "params_sealed")
    op.drop_column("verification", "locale")
