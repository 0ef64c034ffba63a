"""Find the attempt of a receipt whose reference nobody knows, by the number that it names.

A provider that takes our id as an idempotency key answers a repeated call only with "sent already"
(Octopush, 120): the id it had given went with the answer to the first, lost in a crash or on the
way, and its receipts name that id. They would stay parked, and a fallback would follow a message
that has arrived. So an attempt whose repeated call was answered so gets the reference, and what is
parked under it is applied: where it alone can be meant (of that account, to that number, in the
last day, without a reference) and the receipt is not of before it. Where there are two, or one may
be submitted once more, nobody can tell, and the receipt stays parked.

What is left of the doubt: another application that sends to the same number from the same account
in that day, and has its receipts sent here, may be taken for us. An account is for one gateway.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from gateway.domain import addresses
from gateway.domain.addresses import PHONE, Address
from gateway.domain.delivery import Attempt, Outcome
from gateway.domain.keyring import Keyring, KeyringError
from gateway.domain.verification import Verification
from gateway.ports import Receipt
from gateway.services import receive
from gateway.services.case import Case, Context, Note, address_for
from gateway.store.ledger import Ledger, Operation, Transaction, Wants
from gateway.store.reads import Reads

REPEATS_FOR = timedelta(hours=24)  # how long a provider knows an id again, and may speak of it
_NEWEST = 10  # verifications of a number that are looked at
_PAGE = 200  # parked receipts that are opened at a time
_ZONES = timedelta(hours=12)  # how far behind UTC the clock may stand that names no zone
_INEXACT = timedelta(seconds=60)  # how wrong a provider's clock may be


@dataclass(frozen=True, slots=True)
class Adopt(Operation[None]):
    """An attempt gets the reference that its lost answer had. `number`: whom the receipt names."""

    attempt_id: UUID
    account: str
    reference: str
    number: str = field(repr=False)


def wants(operation: Adopt) -> Wants:
    """The attempt, whoever carries the reference, and what is parked under it."""
    references = ((operation.account, operation.reference),)
    return Wants(attempts=(operation.attempt_id,), references=references)


def apply(tx: Transaction, context: Context, operation: Adopt, now: datetime) -> None:
    """Unless either has found another meanwhile, or the attempt went to another address."""
    case = Case.open(tx, context, tx.owner(operation.attempt_id), now)
    if case is None or tx.referenced(operation.account, operation.reference) is not None:
        return
    attempt = case.attempt(operation.attempt_id)
    went_there = _went_to(context.keyring, case.verification, attempt, operation.number)
    if not went_there or only([attempt], operation.account, now) is None:
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

    async def place(self, account: str, item: Receipt, now: datetime) -> None:
        """Give a parked receipt's reference to the attempt that it is about, if one can be told.
        Raises Unavailable."""
        if item.reference is None or item.recipient is None:
            return
        found = await self._nameless(account, item.recipient, now)
        if found is not None and not older(item.provider_time, found.queued_at):
            await self.ledger.submit(Adopt(found.id, account, item.reference, item.recipient))

    async def look_back(self, attempt: Attempt, number: str, now: datetime) -> None:
        """The same for an attempt that has just come to be without one, and receipts that came
        before. Raises Unavailable."""
        found: dict[str, Receipt] = {}
        last = None
        while page := await self.reads.parked(attempt.account, attempt.queued_at, last, _PAGE):
            last = page[-1].id
            for kept in page:
                item = receive.unpacked(self.keyring, kept)
                mine = item.recipient is not None and addresses.same(number, item.recipient)
                if mine and item.reference is not None:
                    found[item.reference] = item
            await asyncio.sleep(0)  # opening takes its time: others' turn
            if len(page) < _PAGE or len(found) > 1:
                break
        if len(found) == 1:
            await self.place(attempt.account, found.popitem()[1], now)

    async def _nameless(self, account: str, number: str, now: datetime) -> Attempt | None:
        digits = "".join(char for char in number if char.isdigit()).removeprefix("00")
        index = self.keyring.index(*addresses.indexed(Address(PHONE, f"+{digits}")))
        newest = await self.reads.by_number(None, index, _NEWEST)
        went = [
            one
            for record in await self.reads.records(newest, log=False)
            for one in record.attempts
            if _went_to(self.keyring, record.verification, one, number)
        ]
        return only(went, account, now)


def _went_to(keyring: Keyring, current: Verification, attempt: Attempt, number: str) -> bool:
    """Whether that is the address of the attempt; an erased or sealed one is nobody's."""
    try:
        ours = address_for(keyring, current, attempt.channel)
    except KeyringError:
        return False
    return ours is not None and addresses.same(ours, number)


def only(attempts: Iterable[Attempt], account: str, now: datetime) -> Attempt | None:
    """The attempt that a reference of this account must be, if there is just one without, and its
    repeated call was answered "sent already"."""
    nameless = [
        one
        for one in attempts
        if one.account == account
        and one.reference is None
        and not one.refused
        and not one.waiting
        and now - one.queued_at < REPEATS_FOR
    ]
    return nameless[0] if len(nameless) == 1 and _sent_already(nameless[0]) else None


def _sent_already(attempt: Attempt) -> bool:
    """Taken without an id, at a repeated call, and neither on the wire nor to be called for."""
    settled = attempt.claimed_until is None and attempt.retry_at is None
    return settled and attempt.outcome is Outcome.ACCEPTED and attempt.tries > 1


def older(told: str | None, moment: datetime) -> bool:
    """Whether a provider's time (ISO 8601, or with a blank for the T) surely lies before a moment.
    One without a zone, or that cannot be read, says so only where it does in every zone."""
    try:
        at = datetime.fromisoformat(told or "")
    except ValueError:
        return False
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC) + _ZONES
    return at + _INEXACT < moment
