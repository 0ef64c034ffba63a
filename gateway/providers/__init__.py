"""The providers there are. A new one is a file, a line here and its tests; README.md tells how."""

from collections.abc import Mapping
from typing import Any, Protocol

from gateway.ports import Provider
from gateway.providers.aws import Aws
from gateway.providers.generic import Generic
from gateway.providers.mailgun import Mailgun
from gateway.providers.messenger import Messenger
from gateway.providers.octopush import Octopush
from gateway.providers.sendgrid import Sendgrid
from gateway.providers.smpp import Smpp
from gateway.providers.smtp import Smtp
from gateway.providers.telegram import Telegram
from gateway.providers.twilio import Twilio
from gateway.providers.vonage import Vonage
from gateway.providers.whatsapp import Whatsapp


class ProviderClass(Protocol):
    """What the wiring needs of a provider's class: its settings, its channels, its making."""

    @property
    def Settings(self) -> type[Any]:  # noqa: N802 (it is a class)
        """A frozen dataclass; its fields are the keys of the route in gateway.toml."""
        ...

    @property
    def channels(self) -> frozenset[str]: ...

    def __call__(self, settings: Any) -> Provider[Any, Any]:
        """Raises ValueError, every wrong setting by its name."""
        ...


PROVIDERS: Mapping[str, ProviderClass] = {
    "aws": Aws,
    "generic": Generic,
    "mailgun": Mailgun,
    "messenger": Messenger,
    "octopush": Octopush,
    "sendgrid": Sendgrid,
    "smpp": Smpp,
    "smtp": Smtp,
    "telegram": Telegram,
    "twilio": Twilio,
    "vonage": Vonage,
    "whatsapp": Whatsapp,
}
