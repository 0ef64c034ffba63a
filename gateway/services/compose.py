"""One message as its provider gets it: address, text, and how long it may still arrive."""

from datetime import datetime

from gateway.domain.catalogue import Catalogue
from gateway.domain.keyring import Keyring
from gateway.ports import Outgoing
from gateway.services.case import Handover, address_for, code_of, given_of


def outgoing(
    keyring: Keyring, catalogue: Catalogue, handover: Handover, callback_url: str, now: datetime
) -> Outgoing:
    """The message of a claimed attempt. Raises LookupError when its recipient has been erased, and
    KeyringError when the keyring does not open it."""
    current, attempt = handover.verification, handover.attempt
    address = address_for(keyring, current, attempt.channel)
    if address is None:
        raise LookupError("the recipient has been erased")
    code = code_of(keyring, current)
    life = int((current.expires_at - now).total_seconds())
    patience = int((attempt.overdue_at - now).total_seconds())
    message = catalogue.render(
        current.template,
        current.locale,
        attempt.channel,
        code=code,
        seconds=life,
        given=given_of(keyring, current),
    )
    return Outgoing(
        attempt_id=str(attempt.id),
        channel=attempt.channel,
        recipient=address,
        text=message.text,
        code=code,
        sender=handover.sender,
        callback_url=callback_url,
        validity=life if handover.last_step else max(1, min(patience, life)),
        locale=message.locale,
        template=current.template,
        subject=message.subject,
    )
