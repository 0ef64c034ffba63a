"""Find the attempt of a receipt whose reference nobody knows, by the number that it names.

A provider that takes our id as an idempotency key answers a repeated call only with "sent already"
(Octopush, 120): the id it had given went with the answer to the first, lost in a crash or on the
way, and its receipts name that id. They would stay parked, and a fallback would follow a message
that has arrived. So where one attempt alone can be meant (of that account, to that number, in the
last day, without a reference and with an answer or none to come) it gets the reference, and what is
parked under it is applied. Where there are two, or one is still on the wire, nobody can tell.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gateway.domain import addresses
from gateway.domain.addresses import PHONE, Address
from gateway.domain.delivery import Attempt
from gateway.domain.keyring import Keyring
from gateway.services import receive
from gateway.services.case import Case, Context, Note
from gateway.store.ledger import Ledger, Operation, Transaction, Wants
from gateway.store.reads import Reads

REPEATS_FOR = timedelta(hours=24)  # how long a provider knows an id again, and may speak of it
_NEWEST = 10  # verifications of a number that are looked at
_PARKED = 1000  # parked receipts that are looked through


@dataclass(frozen=True, slots=True)
class Adopt(Operation[None]):
    """An attempt gets the reference that its lost answer had."""

    attempt_id: UUID
    account: str
    reference: str


def wants(operation: Adopt) -> Wants:
    """The attempt, whoever carries the reference, and what is parked under it."""
    references = ((operation.account, operation.reference),)
    return Wants(attempts=(operation.attempt_id,), references=references)


def apply(tx: Transaction, context: Context, operation: Adopt, now: datetime) -> None:
    """Unless either has found another meanwhile."""
    case = Case.open(tx, context, tx.owner(operation.attempt_id), now)
    if case is None or tx.referenced(operation.account, operation.reference) is not None:
        return
    attempt = case.attempt(operation.attempt_id)
    if attempt.reference is not None:
        return
    attempt = attempt._replace(reference=operation.reference)
    case.change(attempt)
    case.after.append(Note("reference_found", {"attempt_id": attempt.id, "route": attempt.route}))
    receive.unpark(case, attempt, operation.reference)
    case.decide()
    case.close()


@dataclass(frozen=True, slots=True)
class Finder:
    """What looking for an attempt takes."""

    reads: Reads
    ledger: Ledger
    keyring: Keyring

    async def place(self, account: str, reference: str, number: str, now: datetime) -> None:
        """Give a parked receipt's reference to the attempt that it is about, if one can be told.
        Raises Unavailable."""
        found = await self._nameless(account, number, now)
        if found is not None:
            await self.ledger.submit(Adopt(found.id, account, reference))

    async def look_back(self, attempt: Attempt, number: str, now: datetime) -> None:
        """The same for an attempt that has just come to be without one, and receipts that came
        before. Raises Unavailable."""
        references = {
            kept.reference
            for kept in await self.reads.kept(_PARKED)
            if kept.account == attempt.account
            and kept.received_at >= attempt.queued_at
            and receive.names(self.keyring, kept, number)
        }
        if len(references) == 1 and (reference := references.pop()) is not None:
            await self.place(attempt.account, reference, number, now)

    async def _nameless(self, account: str, number: str, now: datetime) -> Attempt | None:
        digits = "".join(char for char in number if char.isdigit()).removeprefix("00")
        index = self.keyring.index(*addresses.indexed(Address(PHONE, f"+{digits}")))
        newest = await self.reads.by_number(None, index, _NEWEST)
        records = await self.reads.records(newest, log=False)
        return only([one for record in records for one in record.attempts], account, now)


def only(attempts: Iterable[Attempt], account: str, now: datetime) -> Attempt | None:
    """The attempt that a reference of this account must be, if there is just one without."""
    nameless = [
        one
        for one in attempts
        if one.account == account
        and one.reference is None
        and not one.refused
        and not one.waiting
        and now - one.queued_at < REPEATS_FOR
    ]
    answered = len(nameless) == 1 and nameless[0].outcome is not None
    return nameless[0] if answered else None
