"""Operators, their sessions, and how often somebody tried to log in.

Every function takes an engine; those that write stand in the caller's transaction.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy import bindparam, delete, insert, or_, select, update

from gateway.domain.access import Session
from gateway.domain.limits import Counter
from gateway.store import tables
from gateway.store.engine import Engine, Read, Write, columns_of, names_of, value
from gateway.store.reads import COUNTERS
from gateway.store.records import Operator
from gateway.store.writes import put_counters, table

_OPERATOR = table(tables.Operator)
_SESSION = table(tables.Session)
_COUNTER = table(tables.Counter)

_OPERATORS: Read[Operator] = Read(
    select(*columns_of(_OPERATOR, Operator)).order_by(_OPERATOR.c.name), Operator
)
_OPERATOR_NAMED: Read[Operator] = Read(
    select(*columns_of(_OPERATOR, Operator)).where(_OPERATOR.c.name == value("name")), Operator
)
_OPERATOR_OF_SUBJECT: Read[Operator] = Read(
    select(*columns_of(_OPERATOR, Operator)).where(_OPERATOR.c.subject == value("subject")),
    Operator,
)
_OPERATOR_OF: Read[Operator] = Read(
    select(*columns_of(_OPERATOR, Operator)).where(
        _OPERATOR.c.id == bindparam("v_id", type_=_OPERATOR.c.id.type)
    ),
    Operator,
)
_SESSION_OF: Read[Session] = Read(
    select(*columns_of(_SESSION, Session)).where(_SESSION.c.digest == value("digest")), Session
)
_INSERT_OPERATOR = Write(
    insert(_OPERATOR).values({name: value(name) for name in names_of(Operator)})
)
_CHANGED = ("role", "password", "totp_sealed", "totp_key_id", "totp_step", "disabled_at")
_UPDATE_OPERATOR = Write(
    update(_OPERATOR)
    .where(_OPERATOR.c.id == value("id"))
    .values({name: value(name) for name in _CHANGED})
)
_USE_STEP = Write(
    update(_OPERATOR)
    .where(
        _OPERATOR.c.id == value("id"),
        or_(_OPERATOR.c.totp_step.is_(None), _OPERATOR.c.totp_step < value("totp_step")),
    )
    .values(totp_step=value("totp_step"))
)
_INSERT_SESSION = Write(insert(_SESSION).values({name: value(name) for name in names_of(Session)}))
_UPDATE_SESSION = Write(
    update(_SESSION)
    .where(_SESSION.c.digest == value("digest"))
    .values(seen_at=value("seen_at"), proven_at=value("proven_at"))
)
_END_SESSION = Write(delete(_SESSION).where(_SESSION.c.digest == value("digest")))
_END_SESSIONS_OF = Write(delete(_SESSION).where(_SESSION.c.operator_id == value("id")))
_END_PAST = Write(delete(_SESSION).where(_SESSION.c.ends_at <= value("ends_at")))
_FORGET_TRIES = Write(delete(_COUNTER).where(_COUNTER.c.key == value("key")))


async def operators(engine: Engine) -> list[Operator]:
    """All of them, by name."""
    return await engine.fetch(_OPERATORS)


async def operator_named(engine: Engine, name: str) -> Operator | None:
    """The operator of that name, disabled or not."""
    found = await engine.fetch(_OPERATOR_NAMED, name)
    return found[0] if found else None


async def operator_of_subject(engine: Engine, subject: str) -> Operator | None:
    """The operator whom the identity provider calls so, disabled or not."""
    found = await engine.fetch(_OPERATOR_OF_SUBJECT, subject)
    return found[0] if found else None


async def session(engine: Engine, digest: bytes) -> tuple[Session, Operator] | None:
    """A session and whose it is, over or not."""
    found = await engine.fetch(_SESSION_OF, digest)
    if not found:
        return None
    return found[0], (await engine.fetch(_OPERATOR_OF, found[0].operator_id))[0]


async def add_operator(engine: Engine, operator: Operator) -> None:
    """A new one. A name that is taken is a Conflict."""
    await engine.run(_INSERT_OPERATOR, [operator])


async def change_operator(engine: Engine, operator: Operator) -> None:
    """Role, password, second factor, disabled: as given. Whoever is logged in has to do it anew."""
    await engine.run(_UPDATE_OPERATOR, [operator])
    await engine.run(_END_SESSIONS_OF, [operator], expect=False)


async def use_step(engine: Engine, operator: Operator, step: int) -> bool:
    """Take a step of the second factor; False when somebody has used it meanwhile."""
    taken = await engine.run(_USE_STEP, [replace(operator, totp_step=step)], expect=False)
    return taken == 1


async def open_session(engine: Engine, opened: Session, now: datetime) -> None:
    """A new session; those past their end go."""
    await engine.run(_END_PAST, [replace(opened, ends_at=now)], expect=False)
    await engine.run(_INSERT_SESSION, [opened])


async def touch_session(engine: Engine, seen: Session) -> None:
    """When it was last seen and proven. One that has ended stays ended."""
    await engine.run(_UPDATE_SESSION, [seen], expect=False)


async def end_session(engine: Engine, ended: Session) -> None:
    """Log out."""
    await engine.run(_END_SESSION, [ended], expect=False)


async def end_sessions(engine: Engine, operator: Operator) -> int:
    """Whoever is logged in as that operator has to do it anew. How many sessions there were."""
    return await engine.run(_END_SESSIONS_OF, [operator], expect=False)


async def tries(engine: Engine, keys: list[bytes]) -> dict[bytes, Counter]:
    """How often was tried, inside the transaction."""
    return {counter.key: counter for counter in await engine.load(COUNTERS, keys)}


async def count_tries(
    engine: Engine, counters: list[Counter], before: Mapping[bytes, Counter]
) -> None:
    """As they are now; `before` as `tries` told. A Conflict when somebody else has just begun to
    count the same."""
    opened = {one.key: before[one.key].since if one.key in before else None for one in counters}
    await put_counters(engine, counters, opened)


async def forget_tries(engine: Engine, counters: list[Counter]) -> None:
    """The login succeeded, or a password was set."""
    await engine.run(_FORGET_TRIES, counters, expect=False)
