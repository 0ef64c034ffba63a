"""The tables. SQLModel defines them, for migrations and cold paths; the hot path uses the same
columns through `writes` and `reads`.

All times are aware UTC. Tables that grow with traffic have no rowid on SQLite: their key is a
time-ordered id, and a second copy of it in an index of its own would be a third of the row.
Retention: docs/retention.md says of every table how long its rows stay and who deletes them.

Over 400 lines: all tables in one place, as migrations compare them.
"""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, MetaData, text
from sqlmodel import Field, SQLModel

from gateway.domain.delivery import Cause, Outcome, State
from gateway.domain.health import Standing as RouteStanding
from gateway.domain.verification import Status
from gateway.store.columns import OUTCOME, STATE, STATUS, Coded, Id, Moment, Standing

STANDING = {
    RouteStanding.READY: 0,
    RouteStanding.PAUSED: 1,
    RouteStanding.DISABLED: 2,
    RouteStanding.PINNED: 3,
}
_ZERO = {"server_default": "0"}
CAUSE = {cause: number for number, cause in enumerate(Cause, start=1)}

# Names by rule, set before the first table: Alembic's batch mode can only drop what has a name.
SQLModel.metadata.naming_convention = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
).naming_convention

_WITHOUT_ROWID = {"sqlite_with_rowid": False}


class Client(SQLModel, table=True):
    """An application that calls the API."""

    __tablename__: ClassVar[str] = "client"

    id: UUID = Field(primary_key=True, sa_type=Id)
    name: str = Field(unique=True)
    created_at: datetime = Field(sa_type=Moment)


class ApiKey(SQLModel, table=True):
    """A bearer key, kept as its SHA-256; `scopes` are words separated by blanks. One that is `test`
    reaches the sandbox alone; `rate` is in calls a second."""

    __tablename__: ClassVar[str] = "api_key"

    id: UUID = Field(primary_key=True, sa_type=Id)
    client_id: UUID = Field(foreign_key="client.id", sa_type=Id, index=True)
    digest: bytes = Field(unique=True)
    scopes: str
    created_at: datetime = Field(sa_type=Moment)
    expires_at: datetime | None = Field(default=None, sa_type=Moment)
    revoked_at: datetime | None = Field(default=None, sa_type=Moment)
    test: bool
    rate: float | None = None
    last_used_at: datetime | None = Field(default=None, sa_type=Moment)


class Plan(SQLModel, table=True):
    """A resolved workflow, once per distinct one: `digest` is of its JSON."""

    __tablename__: ClassVar[str] = "plan"

    digest: bytes = Field(primary_key=True)
    body: str
    created_at: datetime = Field(sa_type=Moment)


class Verification(SQLModel, table=True):
    """One request; see `domain.verification.Verification`. `wake_at` is the gateway's only
    queue."""

    __tablename__: ClassVar[str] = "verification"
    __table_args__ = (
        Index(
            "uq_verification_running",
            "recipient_index",
            "client_id",
            "purpose",
            unique=True,
            sqlite_where=text("status = 0"),
            postgresql_where=text("status = 0"),
        ),
        Index("ix_verification_recipient", "recipient_index", "id"),
        Index(
            "ix_verification_reference",
            "reference",
            "client_id",
            "id",
            sqlite_where=text("reference IS NOT NULL"),
            postgresql_where=text("reference IS NOT NULL"),
        ),
        Index(
            "ix_verification_wake_at",
            "wake_at",
            sqlite_where=text("wake_at IS NOT NULL"),
            postgresql_where=text("wake_at IS NOT NULL"),
        ),
        CheckConstraint("checks_used <= checks_max", name="checks"),
        CheckConstraint("sends_used <= sends_max", name="sends"),
        _WITHOUT_ROWID,
    )

    id: UUID = Field(primary_key=True, sa_type=Id)
    client_id: UUID = Field(foreign_key="client.id", sa_type=Id)
    reference: str | None = None
    purpose: str
    recipient_index: bytes
    recipient_sealed: bytes | None = None
    code_sealed: bytes | None = None
    salt: bytes
    key_id: str
    code_length: int
    plan: bytes = Field(foreign_key="plan.digest")
    step: int
    status: Status = Field(sa_type=Coded(STATUS))
    checks_used: int
    checks_max: int
    sends_used: int
    sends_max: int
    created_at: datetime = Field(sa_type=Moment)
    sent_at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
    wake_at: datetime | None = Field(default=None, sa_type=Moment)
    version: int
    log: int
    locale: str | None = None
    params_sealed: bytes | None = None
    trace: str | None = None
    events: int = Field(default=0, sa_column_kwargs={"server_default": "0"})


class Recipient(SQLModel, table=True):
    """An address of a verification besides its principal one, by its blind index."""

    __tablename__: ClassVar[str] = "recipient"
    __table_args__ = (
        Index("ix_recipient_recipient_index", "recipient_index", "verification_id"),
        _WITHOUT_ROWID,
    )

    verification_id: UUID = Field(primary_key=True, foreign_key="verification.id", sa_type=Id)
    kind: str = Field(primary_key=True)
    recipient_index: bytes


class Attempt(SQLModel, table=True):
    """One handover; see `domain.delivery.Attempt`."""

    __tablename__: ClassVar[str] = "attempt"
    __table_args__ = (
        Index("uq_attempt_ordinal", "verification_id", "ordinal", unique=True),
        Index(
            "uq_attempt_reference",
            "reference",
            "account",
            unique=True,
            sqlite_where=text("reference IS NOT NULL"),
            postgresql_where=text("reference IS NOT NULL"),
        ),
        _WITHOUT_ROWID,
    )

    id: UUID = Field(primary_key=True, sa_type=Id)
    verification_id: UUID = Field(foreign_key="verification.id", sa_type=Id)
    ordinal: int
    step: int
    resend: int
    cause: Cause = Field(sa_type=Coded(CAUSE))
    account: str
    route: str
    channel: str
    state: State = Field(sa_type=Coded(STATE))
    outcome: Outcome | None = Field(default=None, sa_type=Coded(OUTCOME))
    reference: str | None = None
    reason: str | None = None
    error: str | None = None
    queued_at: datetime = Field(sa_type=Moment)
    overdue_at: datetime = Field(sa_type=Moment)
    sent_at: datetime | None = Field(default=None, sa_type=Moment)
    delivered_at: datetime | None = Field(default=None, sa_type=Moment)
    read_at: datetime | None = Field(default=None, sa_type=Moment)
    polled_at: datetime | None = Field(default=None, sa_type=Moment)
    retry_at: datetime | None = Field(default=None, sa_type=Moment)
    claimed_until: datetime | None = Field(default=None, sa_type=Moment)
    tries: int
    words: str
    repeats: int
    cost: str | None = None


class Transition(SQLModel, table=True):
    """One row of the append-only log; `attempt` is an ordinal, None for the verification's own
    status."""

    __tablename__: ClassVar[str] = "transition"
    __table_args__ = (_WITHOUT_ROWID,)

    verification_id: UUID = Field(primary_key=True, sa_type=Id)
    number: int = Field(primary_key=True)
    attempt: int | None = None
    before: State | Status = Field(sa_type=Standing)
    after: State | Status = Field(sa_type=Standing)
    applied: bool
    source: str
    word: str | None = None
    provider_time: str | None = None
    recorded_at: datetime = Field(sa_type=Moment)


class Receipt(SQLModel, table=True):
    """A receipt that could not be applied: parked until its reference is known, or kept aside."""

    __tablename__: ClassVar[str] = "receipt"
    __table_args__ = (Index("ix_receipt_reference", "reference", "account"),)

    id: UUID = Field(primary_key=True, sa_type=Id)
    account: str
    reference: str | None = None
    why: str
    sealed: bytes
    key_id: str
    received_at: datetime = Field(sa_type=Moment, index=True)


class Counter(SQLModel, table=True):
    """How often something happened since a moment; the key is keyed, and names nobody."""

    __tablename__: ClassVar[str] = "counter"
    __table_args__ = (_WITHOUT_ROWID,)

    key: bytes = Field(primary_key=True)
    since: datetime = Field(sa_type=Moment, index=True)
    count: int


class Tally(SQLModel, table=True):
    """What one node counted of something wider than one number; see `store.tallies`. The sum over
    its nodes is what counts, until `until`: its retention."""

    __tablename__: ClassVar[str] = "tally"
    __table_args__ = (_WITHOUT_ROWID,)

    key: bytes = Field(primary_key=True)
    node: str = Field(primary_key=True)
    amount: int = Field(sa_type=BigInteger)
    verified: int
    until: datetime = Field(sa_type=Moment, index=True)


class GuardPass(SQLModel, table=True):
    """A prefix or country that an operator lets through the pumping guard, until when; kept after
    that, since it says who was let through and why."""

    __tablename__: ClassVar[str] = "guard_pass"

    scope: str = Field(primary_key=True)
    until: datetime = Field(sa_type=Moment)
    reason: str
    created_at: datetime = Field(sa_type=Moment)


class Suppression(SQLModel, table=True):
    """A number that does not take a channel from a sender ("" where the route has none), and until
    when that is believed: its retention."""

    __tablename__: ClassVar[str] = "suppression"
    __table_args__ = (_WITHOUT_ROWID,)

    recipient_index: bytes = Field(primary_key=True)
    channel: str = Field(primary_key=True)
    account: str = Field(primary_key=True)
    sender: str = Field(primary_key=True)
    reason: str
    since: datetime = Field(sa_type=Moment)
    until: datetime = Field(sa_type=Moment, index=True)


class Event(SQLModel, table=True):
    """What clients are told, written with what caused it and never changed; `sequence` counts from
    1 within its verification. Retention: the setting `keep_events`."""

    __tablename__: ClassVar[str] = "event"
    __table_args__ = (_WITHOUT_ROWID,)

    verification_id: UUID = Field(primary_key=True, sa_type=Id)
    sequence: int = Field(primary_key=True)
    kind: str
    payload: str
    created_at: datetime = Field(sa_type=Moment)


class Subscription(SQLModel, table=True):
    """Where a client wants its events; `kinds` are words separated by blanks. `sealed` holds the
    secret and, for a day after `rotated_at`, the one it replaced. `failures` are consecutive."""

    __tablename__: ClassVar[str] = "subscription"

    id: UUID = Field(primary_key=True, sa_type=Id)
    client_id: UUID = Field(foreign_key="client.id", sa_type=Id, index=True)
    url: str
    kinds: str
    sealed: bytes
    key_id: str
    created_at: datetime = Field(sa_type=Moment)
    rotated_at: datetime | None = Field(default=None, sa_type=Moment)
    failures: int = 0
    failing_since: datetime | None = Field(default=None, sa_type=Moment)
    problem: str | None = None
    disabled_at: datetime | None = Field(default=None, sa_type=Moment)
    disabled_why: str | None = None


class Delivery(SQLModel, table=True):
    """A subscription's place in the events of one verification: `next` is to be delivered, `last`
    is the newest it wants. The row goes when all are delivered. `due_at` null: given up."""

    __tablename__: ClassVar[str] = "delivery"
    __table_args__ = (
        Index(
            "ix_delivery_due",
            "subscription_id",
            "due_at",
            sqlite_where=text("due_at IS NOT NULL"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
        _WITHOUT_ROWID,
    )

    verification_id: UUID = Field(primary_key=True, sa_type=Id)
    subscription_id: UUID = Field(primary_key=True, sa_type=Id)
    next: int
    last: int
    due_at: datetime | None = Field(default=None, sa_type=Moment)
    tries: int
    claim: UUID | None = Field(default=None, sa_type=Id)


class Idempotency(SQLModel, table=True):
    """What a request with an Idempotency-Key was answered, for 24 h: `key` and `fingerprint` are
    keyed hashes (of client and key; of method, path and body), the body is sealed."""

    __tablename__: ClassVar[str] = "idempotency"
    __table_args__ = (_WITHOUT_ROWID,)

    key: bytes = Field(primary_key=True)
    fingerprint: bytes
    status: int
    sealed: bytes
    key_id: str
    created_at: datetime = Field(sa_type=Moment, index=True)


class Mark(SQLModel, table=True):
    """When something was last done, by name: `reconcile`, the last pass over what is due."""

    __tablename__: ClassVar[str] = "mark"

    name: str = Field(primary_key=True)
    at: datetime = Field(sa_type=Moment)


class RouteStat(SQLModel, table=True):
    """What was heard of a route in a country, counted by one process (`node`) from `at` on: five
    minutes, less where a route was resumed within them. Summed when read. `within_N` and `slower`:
    deliveries by the seconds they took."""

    __tablename__: ClassVar[str] = "route_stat"
    __table_args__ = (_WITHOUT_ROWID,)

    at: datetime = Field(primary_key=True, sa_type=Moment)
    route: str = Field(primary_key=True)
    country: str = Field(primary_key=True)
    node: str = Field(primary_key=True)
    accepted: int
    refused: int
    unknown: int
    delivered: int
    read: int
    failed: int
    silent: int
    verified: int
    within_2: int = Field(default=0, sa_column_kwargs=_ZERO)
    within_5: int = Field(default=0, sa_column_kwargs=_ZERO)
    within_10: int = Field(default=0, sa_column_kwargs=_ZERO)
    within_20: int = Field(default=0, sa_column_kwargs=_ZERO)
    within_30: int = Field(default=0, sa_column_kwargs=_ZERO)
    within_60: int = Field(default=0, sa_column_kwargs=_ZERO)
    within_120: int = Field(default=0, sa_column_kwargs=_ZERO)
    within_300: int = Field(default=0, sa_column_kwargs=_ZERO)
    slower: int = Field(default=0, sa_column_kwargs=_ZERO)


class RouteState(SQLModel, table=True):
    """How a route stands; see `domain.health.RouteState`. A route without a row is ready."""

    __tablename__: ClassVar[str] = "route_state"

    route: str = Field(primary_key=True)
    standing: RouteStanding = Field(sa_type=Coded(STANDING))
    since: datetime = Field(sa_type=Moment)
    reason: str
    actor: str
    probe_at: datetime | None = Field(default=None, sa_type=Moment)
    opened: int


class Operator(SQLModel, table=True):
    """A person at the console. `password` is an argon2id hash with its parameters; `totp_step` the
    newest step of the second factor that was used; `subject` names them at the identity
    provider."""

    __tablename__: ClassVar[str] = "operator"
    __table_args__ = (Index("uq_operator_subject", "subject", unique=True),)

    id: UUID = Field(primary_key=True, sa_type=Id)
    name: str = Field(unique=True)
    role: str
    password: str
    totp_sealed: bytes | None = None
    totp_key_id: str | None = None
    totp_step: int | None = None
    created_at: datetime = Field(sa_type=Moment)
    disabled_at: datetime | None = Field(default=None, sa_type=Moment)
    subject: str | None = None


class Session(SQLModel, table=True):
    """A login, by the SHA-256 of the secret in its cookie; see `domain.access.Session`."""

    __tablename__: ClassVar[str] = "session"

    digest: bytes = Field(primary_key=True)
    operator_id: UUID = Field(foreign_key="operator.id", sa_type=Id, index=True)
    created_at: datetime = Field(sa_type=Moment)
    seen_at: datetime = Field(sa_type=Moment)
    proven_at: datetime = Field(sa_type=Moment)
    ends_at: datetime = Field(sa_type=Moment, index=True)


class Audit(SQLModel, table=True):
    """One row of the append-only audit log; see `domain.audit`."""

    __tablename__: ClassVar[str] = "audit"
    __table_args__ = (
        Index("ix_audit_actor", "actor", "sequence"),
        Index("ix_audit_subject", "subject", "sequence"),
    )

    sequence: int = Field(
        sa_column=Column(BigInteger, primary_key=True, autoincrement=False, nullable=False)
    )
    at: datetime = Field(sa_type=Moment)
    actor: str
    action: str
    subject: str | None = None
    what: str
    why: str
    before: bytes
    digest: bytes
