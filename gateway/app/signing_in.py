"""Logins at an identity provider, where one is configured."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from gateway.config import Settings, SettingsError
from gateway.domain.keyring import Keyring
from gateway.ports import Transport
from gateway.services.oidc import SignIn


def sign_in(
    settings: Settings,
    keyring: Keyring,
    transport: Transport,
    now: Callable[[], datetime],
    log: Any,
) -> SignIn | None:
    """The way there. Raises SettingsError: the package for it is not installed."""
    given = settings.oidc
    if given is None:
        return None
    try:
        from gateway.services.idtoken import signed
    except ImportError as error:
        problem = f"needs the extra `oidc`: pip install 'otp-gateway[oidc]' ({error.name})"
        raise SettingsError({"oidc.issuer": problem}) from None
    return SignIn(
        given.terms,
        given.secret,
        given.title,
        public_url=settings.public_url,
        keyring=keyring,
        transport=transport,
        signed=signed,
        now=now,
        log=log,
    )
