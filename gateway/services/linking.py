"""What a code is for: the template, and the amount and payee it is linked to.

The purpose of a verification is its template's name and, where something is paid, a keyed index of
amount and payee: so that a payment never joins a login or another payment. A check demands both
again (PSD2, dynamic linking) and compares them with what was sealed when the code was sent.
"""

from uuid import UUID

from gateway.domain import templates
from gateway.domain.errors import InvalidInput
from gateway.domain.keyring import NONCE_BYTES, Keyring
from gateway.domain.templates import Given
from gateway.domain.verification import Verification
from gateway.services.case import given_of
from gateway.services.runtime import Runtime

_NOTHING = Given()


def purpose(runtime: Runtime, name: str, given: Given | None) -> str:
    """The purpose of a request. Raises InvalidInput where it does not fit its template."""
    template = runtime.catalogue.template(name)
    if given is None and not template.demands:
        return name
    templates.check(template, given or _NOTHING)
    if given is None or given.amount is None or given.payee is None:
        return name
    return linked(runtime.keyring, name, given.amount, given.payee)


def linked(keyring: Keyring, name: str, amount: str, payee: str) -> str:
    """The purpose of a payment."""
    index = keyring.index("linked", f"{amount}\0{payee}")
    return f"{name}:{index.hex()}"


def seal(runtime: Runtime, key_id: str, named: UUID, given: Given) -> bytes:
    """What the text of that verification is filled with, as it is kept."""
    return runtime.keyring.seal(
        key_id,
        given.pack(),
        owner=b"params" + named.bytes,
        nonce=runtime.entropy(NONCE_BYTES),
    )


def demand(keyring: Keyring, current: Verification, amount: str | None, payee: str | None) -> None:
    """Raise InvalidInput `amount_mismatch` unless amount and payee are those the code was sent
    for: none where there were none. Nothing is compared or counted then."""
    given = given_of(keyring, current) or _NOTHING
    lost = ":" in current.purpose and given.amount is None  # erased: then nothing is confirmed
    if lost or (given.amount, given.payee) != (amount, payee):
        detail = (
            "This code confirms another amount or payee. Give `amount` and `payee` exactly as they "
            "were sent."
            if ":" in current.purpose
            else "This code was sent without `amount` and `payee`."
        )
        raise InvalidInput("amount_mismatch", detail)
