"""Column types: how the domain's values lie in a row, compactly and alike on both databases.

Each type offers plain converters besides SQLAlchemy's own hooks, since the hot path hands rows to
the driver without going through SQLAlchemy.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Dialect, LargeBinary, SmallInteger, Uuid
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

from gateway.domain import delivery, verification
from gateway.domain.delivery import Outcome, State
from gateway.domain.identity import numbered
from gateway.domain.verification import Status

Convert = Callable[[Any], Any]


class Stored(TypeDecorator[Any]):
    """A type with explicit converters: `encode` to the driver, `decode` from it."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = LargeBinary
    cache_ok = True

    def encoder(self, dialect: str) -> Convert | None:
        """From the domain's value to the driver's; None where they are the same."""
        raise NotImplementedError

    def decoder(self, dialect: str) -> Convert | None:
        """The way back."""
        raise NotImplementedError

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        convert = self.encoder(dialect.name)
        return value if value is None or convert is None else convert(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        convert = self.decoder(dialect.name)
        return value if value is None or convert is None else convert(value)


_bytes_of: Callable[[UUID], bytes] = attrgetter("bytes")

# What statements spell out in the code made for them, since a call of Python's costs more than it.
SPELLED: Mapping[Convert, str] = {_bytes_of: "{}.int.to_bytes(16)"}


def _uuid_of(value: bytes) -> UUID:
    return numbered(int.from_bytes(value))


def _plain_uuid(value: UUID) -> UUID:
    """asyncpg's own kind of UUID is one no JSON writer knows."""
    return numbered(value.int)


class Id(Stored):
    """A UUID in 16 bytes: `uuid` on PostgreSQL, a blob on SQLite."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Uuid() if dialect.name == "postgresql" else LargeBinary(16))

    def encoder(self, dialect: str) -> Convert | None:
        return None if dialect == "postgresql" else _bytes_of

    def decoder(self, dialect: str) -> Convert | None:
        return _plain_uuid if dialect == "postgresql" else _uuid_of


@lru_cache(maxsize=1024)
def _milliseconds(value: datetime) -> int:
    """A batch has one `now`, which stands in many of its cells: one look-up instead of ten steps"""
    return round(value.timestamp() * 1000)


def _moment(value: int) -> datetime:
    return datetime.fromtimestamp(value / 1000, UTC)


class Moment(Stored):
    """An aware UTC time to the millisecond: `timestamptz` on PostgreSQL, an integer on SQLite."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        native = TIMESTAMP(timezone=True) if dialect.name == "postgresql" else BigInteger()
        return dialect.type_descriptor(native)

    def encoder(self, dialect: str) -> Convert | None:
        return None if dialect == "postgresql" else _milliseconds

    def decoder(self, dialect: str) -> Convert | None:
        return None if dialect == "postgresql" else _moment


class Coded(Stored):
    """A member of a closed set as a small integer."""

    impl = SmallInteger
    cache_ok = True

    def __init__(self, numbers: Mapping[Any, int]) -> None:
        super().__init__()
        self.numbers = tuple(numbers.items())  # hashable: part of SQLAlchemy's cache key
        self._encode = dict(numbers).__getitem__
        self._decode = {number: member for member, number in numbers.items()}.__getitem__

    def encoder(self, dialect: str) -> Convert | None:
        return self._encode

    def decoder(self, dialect: str) -> Convert | None:
        return self._decode


STATE: Mapping[State, int] = delivery.RANKS

STATUS: Mapping[Status, int] = verification.NUMBERS

OUTCOME: Mapping[Outcome, int] = {
    Outcome.ACCEPTED: 1,
    Outcome.UNKNOWN: 2,
    Outcome.TEMPORARY: 3,
    Outcome.THROTTLED: 4,
    Outcome.ACCOUNT: 5,
    Outcome.PERMANENT: 6,
    Outcome.WITHDRAWN: 7,
}


class Standing(Stored):
    """What the log tells of: a state of an attempt (its rank) or a status of the verification (100
    and its number). No table by member can say it: `State.FAILED == Status.FAILED`, both are text.
    """

    impl = SmallInteger
    cache_ok = True

    def encoder(self, dialect: str) -> Convert | None:
        return _standing_number

    def decoder(self, dialect: str) -> Convert | None:
        return _standing


def _standing_number(value: State | Status) -> int:
    return value.rank if isinstance(value, State) else 100 + value.number


def _standing(number: int) -> State | Status:
    if number < 100:
        return delivery.BY_RANK[number]
    return verification.BY_NUMBER[number - 100]
