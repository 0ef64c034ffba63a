"""`Idempotency-Key`: the same request sent again gets the answer of the first, and has no effect.

What is stored in the transaction of the effect: a keyed hash of client and key, a fingerprint
(keyed hash of method, path and body), status and body of the answer, sealed. A twin that comes
meanwhile is an operation behind the first: the ledger's order makes it wait, and on two processes
the unique key does.

Stored are answers of what was done: every success, and a wrong code, which was counted. A refusal
that changed nothing is not: sent again, the same request is judged anew and may succeed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from gateway.domain.errors import GatewayError, InvalidInput, Unprocessable
from gateway.domain.keyring import NONCE_BYTES, Keyring
from gateway.services import send, verify
from gateway.services.case import Context
from gateway.services.runtime import Runtime
from gateway.store.ledger import Doing, Operation, Transaction, Wants
from gateway.store.records import StoredAnswer

KEPT_FOR = timedelta(hours=24)
LONGEST = 255  # characters of a key
COUNTED = frozenset({"wrong_code"})  # refusals that are effects all the same
_CHUNK = 500  # answers one operation forgets
_CHUNKS = 100  # operations one sweep may use


class Key(NamedTuple):
    """An `Idempotency-Key` of a client, and the request it came with, both as keyed hashes."""

    named: bytes
    fingerprint: bytes


class Answered(NamedTuple):
    """An answer: its HTTP status and body; `replayed` when it is that of an earlier request."""

    status: int
    body: bytes
    replayed: bool


Render = Callable[[Any, datetime], tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Once(Operation[Answered]):
    """Do `operation` unless the key has its answer already. `render` makes the answer of a result,
    a refusal among them: pure, for it runs inside the transaction."""

    key: Key
    operation: Operation[Any]
    render: Render


class AcceptOnce(Once):
    """A send."""


class CheckOnce(Once):
    """A check."""


class CancelOnce(Once):
    """A cancel."""


class NextOnce(Once):
    """The next step."""


_KINDS: Mapping[type[Operation[Any]], type[Once]] = {
    send.Accept: AcceptOnce,
    verify.Check: CheckOnce,
    verify.Cancel: CancelOnce,
    verify.Next: NextOnce,
}


@dataclass(frozen=True, slots=True)
class Forget(Operation[int]):
    """Drop answers whose time is over. How many it were."""

    keys: tuple[bytes, ...]


def named(
    keyring: Keyring, client_id: UUID, given: str, *, method: str, path: str, body: bytes
) -> Key:
    """The key a request came with. Raises InvalidInput when it is empty, too long or not visible
    ASCII."""
    if not (0 < len(given) <= LONGEST and given.isascii() and given.isprintable()):
        raise InvalidInput(
            "invalid_request",
            f"`Idempotency-Key` must be 1 to {LONGEST} printable ASCII characters, a UUID say.",
        )
    return Key(
        keyring.fingerprint(b"idempotency", client_id.bytes, given.encode()),
        keyring.fingerprint(b"request", method.encode(), path.encode(), body),
    )


async def stored(runtime: Runtime, key: Key, now: datetime) -> Answered | None:
    """The answer that is committed already: most repetitions need no transaction.

    Raises Unprocessable `idempotency_mismatch`.
    """
    found = await runtime.reads.answer(key.named)
    if found is None or over(found, now):
        return None
    return _replayed(runtime.keyring, key, found)


async def submit(runtime: Runtime, key: Key, operation: Operation[Any], render: Render) -> Answered:
    """The operation's answer, or that of the request that came first with this key.

    Raises what the operation is refused with, or Unprocessable `idempotency_mismatch`.
    """
    kind = _KINDS[type(operation)]
    return await runtime.ledger.submit(kind(key, operation, render))


def doings(
    context: Context, table: Mapping[type[Operation[Any]], Doing]
) -> dict[type[Operation[Any]], Doing]:
    """How the operations of `table` are done once, each in the place of what it does."""
    made: dict[type[Operation[Any]], Doing] = {
        once: _once(context, table[kind]) for kind, once in _KINDS.items()
    }
    return made | {Forget: Doing(7, 1.0, wants_forget, apply_forget)}


def _once(context: Context, inner: Doing) -> Doing:
    def wants(operation: Once) -> Wants:
        return inner.wants(operation.operation)._replace(answers=(operation.key.named,))

    def apply(tx: Transaction, operation: Once, now: datetime) -> Answered:
        found = tx.answer(operation.key.named)
        if found is not None and not over(found, now):
            return _replayed(context.keyring, operation.key, found)
        result = inner.apply(tx, operation.operation, now)
        status, body = operation.render(result, now)
        if not isinstance(result, GatewayError) or result.code in COUNTED:
            tx.put_answer(_sealed(context, operation.key, status, body, now))
        return Answered(status, body, replayed=False)

    return Doing(inner.order, inner.share, wants, apply)


def wants_forget(operation: Forget) -> Wants:
    """The answers themselves: a key may have been used anew meanwhile."""
    return Wants(answers=operation.keys)


def apply_forget(tx: Transaction, operation: Forget, now: datetime) -> int:
    """Drop those whose time is over still."""
    found = [one for one in map(tx.answer, operation.keys) if one is not None and over(one, now)]
    for one in found:
        tx.drop_answer(one)
    return len(found)


async def sweep(runtime: Runtime, now: datetime) -> int:
    """Forget answers older than 24 h, so many at a time that nobody waits. How many it were."""
    forgotten = 0
    for _ in range(_CHUNKS):
        keys = await runtime.reads.answers_before(now - KEPT_FOR, _CHUNK)
        if not keys:
            break
        forgotten += await runtime.ledger.submit(Forget(tuple(keys)))
    return forgotten


def over(answer: StoredAnswer, now: datetime) -> bool:
    """Whether its 24 h have passed: the key may be used anew, swept or not."""
    return now >= answer.created_at + KEPT_FOR


def _replayed(keyring: Keyring, key: Key, found: StoredAnswer) -> Answered:
    if found.fingerprint != key.fingerprint:
        raise Unprocessable(
            "idempotency_mismatch",
            "This Idempotency-Key came with another request before. Send that one again, byte for "
            "byte, or use a new key.",
        )
    body = keyring.open(found.key_id, found.sealed, owner=_owner(found.key))
    return Answered(found.status, body, replayed=True)


def _sealed(context: Context, key: Key, status: int, body: bytes, now: datetime) -> StoredAnswer:
    key_id = context.keyring.current
    nonce = context.entropy(NONCE_BYTES)
    sealed = context.keyring.seal(key_id, body, owner=_owner(key.named), nonce=nonce)
    return StoredAnswer(key.named, key.fingerprint, status, sealed, key_id, now)


def _owner(index: bytes) -> bytes:
    return b"answer" + index
