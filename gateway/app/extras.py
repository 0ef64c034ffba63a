"""What needs an extra to be installed: logins at an identity provider, traces. Neither package is
imported where nothing of the kind is configured.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from gateway.config import Settings, SettingsError
from gateway.domain.keyring import Keyring
from gateway.ports import NO_TRACER, Tracer, Transport
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


def tracer_of(settings: Settings) -> Tracer:
    """What keeps spans. Raises SettingsError: the packages for it are not installed."""
    if settings.traces is None:
        return NO_TRACER
    try:
        from gateway import traces
    except ImportError as error:
        problem = f"needs the extra `otel`: pip install 'otp-gateway[otel]' ({error.name})"
        raise SettingsError({"traces.endpoint": problem}) from None
    return traces.exporting(settings.traces.endpoint, settings.traces.headers)
