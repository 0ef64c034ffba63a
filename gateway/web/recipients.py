"""Whom a request is for: a number, or addresses by kind, read into what the services take."""

from gateway.domain import addresses, recipient
from gateway.domain.addresses import PHONE, Address
from gateway.domain.errors import InvalidInput
from gateway.domain.recipient import Phone
from gateway.web.schemas import Addresses

PRIVATE = ("number", "email", "messenger")  # what has no place in a URL


def read(
    to: "str | Addresses", default_region: str | None
) -> tuple[Phone | None, tuple[Address, ...]]:
    """The phone number and the other addresses. Raises InvalidInput, with the `field` that is
    wrong where `to` has several."""
    if isinstance(to, str):
        return recipient.parse(to, default_region), ()
    given = {kind: text for kind, text in to if text is not None}
    if not given:
        kinds = ", ".join(f"`{kind}`" for kind in addresses.KINDS)
        raise InvalidInput("invalid_request", f"No address is named. Give one of {kinds}.")
    phone = None
    others = []
    for kind, text in given.items():
        try:
            if kind == PHONE:
                phone = recipient.parse(text, default_region)
            else:
                others.append(addresses.parse(kind, text, default_region))
        except InvalidInput as error:
            facts = {**error.facts, "field": kind}
            raise InvalidInput(error.code, error.detail, facts=facts) from None
    return phone, tuple(others)
