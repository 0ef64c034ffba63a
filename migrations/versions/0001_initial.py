"""The first tables.

Revises: nothing
"""

import sqlalchemy as sa
from alembic import op

from gateway.store.columns import Id, Moment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "client",
        sa.Column("id", Id(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client")),
        sa.UniqueConstraint("name", name=op.f("uq_client_name")),
    )
    op.create_table(
        "counter",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_counter")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "mark",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_mark")),
    )
    op.create_table(
        "plan",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_plan")),
    )
    op.create_table(
        "receipt",
        sa.Column("id", Id(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("reference", sa.String(), nullable=True),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("received_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipt")),
    )
    op.create_index("ix_receipt_received_at", "receipt", ["received_at"], unique=False)
    op.create_index("ix_receipt_reference", "receipt", ["reference", "account"], unique=False)
    op.create_table(
        "transition",
        sa.Column("verification_id", Id(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("before", sa.SmallInteger(), nullable=False),
        sa.Column("after", sa.SmallInteger(), nullable=False),
        sa.Column("applied", sa.Boolean(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("word", sa.String(), nullable=True),
        sa.Column("provider_time", sa.String(), nullable=True),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("verification_id", "number", name=op.f("pk_transition")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "api_key",
        sa.Column("id", Id(), nullable=False),
        sa.Column("client_id", Id(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.String(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=True),
        sa.Column("revoked_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id"], ["client.id"], name=op.f("fk_api_key_client_id_client")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_key_digest")),
    )
    op.create_index("ix_api_key_client_id", "api_key", ["client_id"], unique=False)
    op.create_table(
        "verification",
        sa.Column("id", Id(), nullable=False),
        sa.Column("client_id", Id(), nullable=False),
        sa.Column("reference", sa.String(), nullable=True),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("recipient_index", sa.LargeBinary(), nullable=False),
        sa.Column("recipient_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("code_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("code_length", sa.Integer(), nullable=False),
        sa.Column("plan", sa.LargeBinary(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("checks_used", sa.Integer(), nullable=False),
        sa.Column("checks_max", sa.Integer(), nullable=False),
        sa.Column("sends_used", sa.Integer(), nullable=False),
        sa.Column("sends_max", sa.Integer(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("sent_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.Column("wake_at", Moment(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("log", sa.Integer(), nullable=False),
        sa.CheckConstraint("checks_used <= checks_max", name=op.f("ck_verification_checks")),
        sa.CheckConstraint("sends_used <= sends_max", name=op.f("ck_verification_sends")),
        sa.ForeignKeyConstraint(
            ["client_id"], ["client.id"], name=op.f("fk_verification_client_id_client")
        ),
        sa.ForeignKeyConstraint(["plan"], ["plan.digest"], name=op.f("fk_verification_plan_plan")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verification")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_verification_recipient", "verification", ["recipient_index", "id"], unique=False
    )
    op.create_index(
        "ix_verification_reference",
        "verification",
        ["reference", "client_id", "id"],
        unique=False,
        sqlite_where=sa.text("reference IS NOT NULL"),
        postgresql_where=sa.text("reference IS NOT NULL"),
    )
    op.create_index(
        "ix_verification_wake_at",
        "verification",
        ["wake_at"],
        unique=False,
        sqlite_where=sa.text("wake_at IS NOT NULL"),
        postgresql_where=sa.text("wake_at IS NOT NULL"),
    )
    op.create_index(
        "uq_verification_running",
        "verification",
        ["recipient_index", "client_id", "purpose"],
        unique=True,
        sqlite_where=sa.text("status = 0"),
        postgresql_where=sa.text("status = 0"),
    )
    op.create_table(
        "attempt",
        sa.Column("id", Id(), nullable=False),
        sa.Column("verification_id", Id(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("resend", sa.Integer(), nullable=False),
        sa.Column("cause", sa.SmallInteger(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("outcome", sa.SmallInteger(), nullable=True),
        sa.Column("reference", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("queued_at", Moment(), nullable=False),
        sa.Column("overdue_at", Moment(), nullable=False),
        sa.Column("sent_at", Moment(), nullable=True),
        sa.Column("delivered_at", Moment(), nullable=True),
        sa.Column("read_at", Moment(), nullable=True),
        sa.Column("polled_at", Moment(), nullable=True),
        sa.Column("retry_at", Moment(), nullable=True),
        sa.Column("claimed_until", Moment(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("words", sa.String(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("cost", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["verification_id"],
            ["verification.id"],
            name=op.f("fk_attempt_verification_id_verification"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempt")),
        sqlite_with_rowid=False,
    )
    op.create_index("uq_attempt_ordinal", "attempt", ["verification_id", "ordinal"], unique=True)
    op.create_index(
        "uq_attempt_reference",
        "attempt",
        ["reference", "account"],
        unique=True,
        sqlite_where=sa.text("reference IS NOT NULL"),
        postgresql_where=sa.text("reference IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("uq_attempt_reference", "attempt")
    op.drop_index("uq_attempt_ordinal", "attempt")
    op.drop_table("attempt")
    op.drop_index("uq_verification_running", "verification")
    op.drop_index("ix_verification_wake_at", "verification")
    op.drop_index("ix_verification_reference", "verification")
    op.drop_index("ix_verification_recipient", "verification")
    op.drop_table("verification")
    op.drop_index("ix_api_key_client_id", "api_key")
    op.drop_table("api_key")
    op.drop_table("transition")
    op.drop_index("ix_receipt_reference", "receipt")
    op.drop_index("ix_receipt_received_at", "receipt")
    op.drop_table("receipt")
    op.drop_table("plan")
    op.drop_table("mark")
    op.drop_table("counter")
    op.drop_table("client")
