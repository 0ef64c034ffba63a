"""One message as its provider gets it: address, text, and how long it may still arrive."""

from datetime import datetime

from gateway.domain import addresses
from gateway.domain.catalogue import Catalogue
from gateway.domain.keyring import Keyring
from gateway.ports import Outgoing
from gateway.services.case import Handover, address_for, code_of, given_of


def outgoing(
    keyring: Keyring, catalogue: Catalogue, handover: Handover, callback_url: str, now: datetime
) -> Outgoing:
    """The message of a claimed attempt. Raises LookupError when its recipient has been erased, and
    KeyringError when the keyring does not open it."""
    current, attempt, sender, last_step, address = handover
    channel, template = attempt.channel, current.template
    if address is None or channel == addresses.EMAIL:
        address = address_for(keyring, current, channel)
    if address is None:
        raise LookupError("the recipient has been erased")
    code = code_of(keyring, current)
    life = validity = int((current.expires_at - now).total_seconds())
    if not last_step:
        patience = int((attempt.overdue_at - now).total_seconds())
        validity = max(1, min(patience, life))
    text, subject, locale = catalogue.render(
        template,
        current.locale,
        channel,
        code=code,
        seconds=life,
        given=given_of(keyring, current),
    )
    return Outgoing(
        attempt_id=str(attempt.id),
        channel=channel,
        recipient=address,
        text=text,
        code=code,
        sender=sender,
        callback_url=callback_url,
        validity=validity,
        locale=locale,
        template=template,
        subject=subject,
    )
