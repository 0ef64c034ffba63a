"""Logging in through an identity provider: OpenID Connect Core 1.0, authorization code flow with
PKCE (RFC 7636). What goes into the addresses, what an ID token must say, and which role follows.

Nothing here fetches or checks a signature: `services.oidc` does.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard
from urllib.parse import urlencode, urlsplit

from gateway.domain.access import Role
from gateway.domain.errors import Unauthenticated

SKEW = timedelta(seconds=60)  # how far the provider's clock may be from ours
FLOW = timedelta(minutes=10)  # how long somebody may take at the provider
_SUBJECT_MOST = 255  # characters, by the standard


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed with a provider. `roles`: which values of the claim make a viewer, a support
    person, an admin; a claim within another is written `realm_access.roles`."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    name_claim: str
    role_claim: str
    roles: Mapping[Role, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Flow:
    """One way to the provider and back, known to one browser alone. `fresh`: the person has to
    prove anew who they are."""

    state: str
    nonce: str
    verifier: str
    onward: str
    begun_at: datetime
    fresh: bool = False

    @property
    def challenge(self) -> str:
        """What the provider is told of the verifier: S256."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the provider has named: `subject`, which is theirs for ever, under the issuer's name.
    `name` is what they go by, unchecked. `role`: None for somebody who has none here (any more).
    `proven_at`: when they proved it, where that is known."""

    subject: str
    name: str
    role: Role | None
    proven_at: datetime | None


def address(terms: Terms, endpoint: str, flow: Flow, redirect: str) -> str:
    """Where the browser is sent."""
    asked = {
        "response_type": "code",
        "client_id": terms.client_id,
        "redirect_uri": redirect,
        "scope": " ".join(terms.scopes),
        "state": flow.state,
        "nonce": flow.nonce,
        "code_challenge": flow.challenge,
        "code_challenge_method": "S256",
    }
    if flow.fresh:
        asked |= {"prompt": "login", "max_age": "0"}
    joint = "&" if urlsplit(endpoint).query else "?"
    return f"{endpoint}{joint}{urlencode(asked)}"


def returned(terms: Terms, flow: Flow, given: Mapping[str, str], now: datetime) -> str:
    """The code with which the browser came back. Raises Unauthenticated."""
    if not hmac.compare_digest(given.get("state", "").encode(), flow.state.encode()):
        raise refused("oidc_state", "This is not the login that was begun in this browser.")
    if not flow.begun_at <= now < flow.begun_at + FLOW:
        raise refused("oidc_late", "That took too long.")
    if given.get("iss", terms.issuer) != terms.issuer:  # RFC 9207
        raise refused("oidc_issuer", "The answer came from another identity provider.")
    if "error" in given or not given.get("code"):
        raise refused("oidc_declined", "The identity provider did not log you in.")
    return given["code"]


def person(terms: Terms, flow: Flow, claims: Mapping[str, Any], now: datetime) -> Person:
    """Whom a token whose signature holds speaks of; OpenID Connect Core 1.0, 3.1.3.7.

    Raises Unauthenticated for a token that is not for us, now and this flow.
    """
    problem = _problem(terms, flow, claims, now)
    if problem is not None:
        raise refused("oidc_token", f"The identity provider's token does not hold: {problem}.")
    name = claims.get(terms.name_claim)
    name = name.casefold() if isinstance(name, str) else ""
    proven_at = _moment(claims.get("auth_time"), now)
    return Person(f"{terms.issuer} {claims['sub']}", name, role_of(terms, claims), proven_at)


def role_of(terms: Terms, claims: Mapping[str, Any]) -> Role | None:
    """The highest role that the claim gives; None when it gives none."""
    found: Any = claims
    for part in terms.role_claim.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    values = {found} if isinstance(found, str) else set()
    if isinstance(found, Sequence) and not isinstance(found, str):
        values = {one for one in found if isinstance(one, str)}
    for role in reversed(Role):
        if values & terms.roles.get(role, frozenset()):
            return role
    return None


def refused(code: str, what: str) -> Unauthenticated:
    """A login that came to nothing."""
    return Unauthenticated(code, f"{what} Log in again.")


def _problem(terms: Terms, flow: Flow, claims: Mapping[str, Any], now: datetime) -> str | None:
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    subject, ends = claims.get("sub"), claims.get("exp")
    latest = (now + SKEW).timestamp()
    if claims.get("iss") != terms.issuer:
        return "it is of another issuer"
    if not isinstance(audiences, list) or terms.client_id not in audiences:
        return "it is for somebody else"
    if claims.get("azp", terms.client_id) != terms.client_id or (
        len(audiences) > 1 and "azp" not in claims
    ):
        return "it was given to somebody else"
    if not _number(ends) or ends <= (now - SKEW).timestamp():
        return "it is over"
    if any(_number(claims.get(name)) and claims[name] > latest for name in ("iat", "nbf")):
        return "it begins later"
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), flow.nonce.encode()):
        return "it is of another login"
    if not isinstance(subject, str) or not 0 < len(subject) <= _SUBJECT_MOST:
        return "it names nobody"
    proven = _moment(claims.get("auth_time"), now)
    if flow.fresh and (proven is None or proven < flow.begun_at - SKEW):
        return "the person was not asked again"
    return None


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _moment(value: Any, now: datetime) -> datetime | None:
    """Seconds since 1970 as a moment, never one to come."""
    if not _number(value) or not 0 <= value < (now + SKEW).timestamp():
        return None
    return min(datetime.fromtimestamp(int(value), UTC), now)
