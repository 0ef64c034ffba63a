"""The way to an identity provider and back: its addresses and keys, the code for a token.

OpenID Connect Discovery 1.0 and Core 1.0, authorization code flow. What is learned of the provider
is kept for an hour; its keys are asked for again when a token names one that is not known.
"""

import asyncio
import secrets
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson

from gateway.domain import oidc
from gateway.domain.errors import Unavailable
from gateway.domain.keyring import NONCE_BYTES, Keyring, KeyringError
from gateway.domain.oidc import Flow, Person, Terms
from gateway.ports import Request, Response, Secret, Transport, TransportError

WITHIN = 10.0  # seconds for one call to the provider
KEPT = timedelta(hours=1)  # its addresses and keys
KEYS_EVERY = timedelta(seconds=30)  # an unknown key has them asked for again, no more often
_OWNER = b"oidc flow"

Signed = Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the provider says of itself."""

    authorize: str
    token: str
    keys_at: str
    methods: tuple[str, ...]  # how a client may prove itself
    keys: Mapping[str, Any]
    at: datetime


class SignIn:
    """Logins at one provider. `signed` checks a token's signature and answers its claims."""

    def __init__(
        self,
        terms: Terms,
        secret: Secret | None,
        title: str,
        *,
        public_url: str,
        keyring: Keyring,
        transport: Transport,
        signed: Signed,
        now: Callable[[], datetime],
        log: Any,
    ) -> None:
        self.title = title
        self.issuer = terms.issuer
        self._terms = terms
        self._secret = secret
        self._redirect = f"{public_url}/console/oidc/callback"
        self._keyring = keyring
        self._transport = transport
        self._signed = signed
        self._now = now
        self._log = log
        self._known: _Known | None = None
        self._turn = asyncio.Lock()

    async def begin(self, onward: str, *, fresh: bool) -> tuple[str, str]:
        """Where the browser is to go, and the cookie it takes along: sealed, of use for one way.

        Raises Unavailable `oidc_unavailable`.
        """
        known = await self._learn()
        flow = Flow(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            onward=onward,
            begun_at=self._now(),
            fresh=fresh,
        )
        return oidc.address(self._terms, known.authorize, flow, self._redirect), self._seal(flow)

    def opened(self, cookie: str) -> Flow:
        """The way that was begun with a cookie of ours. Raises Unauthenticated."""
        flow = self._open(cookie)
        if flow is None:
            raise oidc.refused("oidc_state", "This is not the login that was begun here.")
        return flow

    async def finish(self, flow: Flow, given: Mapping[str, str]) -> Person:
        """Who came back. Raises Unauthenticated, Unavailable `oidc_unavailable`."""
        code = oidc.returned(self._terms, flow, given, self._now())
        token = await self._token(code, flow)
        claims = await self._claims(token)
        return oidc.person(self._terms, flow, claims, self._now())

    async def _token(self, code: str, flow: Flow) -> str:
        """The ID token for a code. Raises Unauthenticated, Unavailable."""
        known = await self._learn()
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": flow.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if self._secret is None:
            fields["client_id"] = self._terms.client_id
        elif "client_secret_basic" in known.methods:
            pair = f"{quote(self._terms.client_id, '')}:{quote(self._secret, '')}"  # RFC 6749 2.3.1
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            fields |= {"client_id": self._terms.client_id, "client_secret": self._secret}
        request = Request("POST", known.token, content=urlencode(fields), headers=headers)
        answer = await self._call(request)
        body = _json(answer)
        if answer.status_code == 200 and isinstance(body.get("id_token"), str):
            return str(body["id_token"])
        # A word of the standard's own (RFC 6749 5.2); what else it says may quote the code.
        self._log.warning("oidc_no_token", status=answer.status_code, error=_word(body))
        if answer.status_code >= 500:
            raise _unavailable()
        raise oidc.refused("oidc_declined", "The identity provider gave no token.")

    async def _claims(self, token: str) -> Mapping[str, Any]:
        known = await self._learn()
        claims = self._signed(token, known.keys)
        if claims is None and self._now() >= known.at + KEYS_EVERY:
            known = await self._learn(anew=True)
            claims = self._signed(token, known.keys)
        if claims is None:
            raise oidc.refused("oidc_token", "The identity provider's token is not signed by it.")
        return claims

    async def _learn(self, *, anew: bool = False) -> _Known:
        """What is known of the provider, asked for where it is missing or old."""
        async with self._turn:
            known, now = self._known, self._now()
            if known is not None and not anew and now < known.at + KEPT:
                return known
            where = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
            told = _json(await self._call(Request("GET", where)))
            names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            addresses = [told.get(name) for name in names]
            if told.get("issuer") != self.issuer or not all(map(_safe, addresses)):
                self._log.error("oidc_odd", issuer=self.issuer)
                raise _unavailable()
            authorize, token, keys_at = map(str, addresses)
            keys = _json(await self._call(Request("GET", keys_at)))
            given = told.get("token_endpoint_auth_methods_supported")
            methods = (
                tuple(map(str, given)) if isinstance(given, list) else ("client_secret_basic",)
            )
            self._known = _Known(authorize, token, keys_at, methods, keys, now)
            return self._known

    async def _call(self, request: Request) -> Response:
        request.headers["Accept"] = "application/json"
        try:
            return await self._transport.send(request, within=WITHIN)
        except TransportError as error:
            self._log.warning("oidc_unreachable", host=request.url.host, reason=error.reason)
            raise _unavailable() from None

    def _seal(self, flow: Flow) -> str:
        body = orjson.dumps(flow)
        nonce, key_id = secrets.token_bytes(NONCE_BYTES), self._keyring.current
        return f"{key_id}.{self._keyring.seal(key_id, body, owner=_OWNER, nonce=nonce).hex()}"

    def _open(self, cookie: str) -> Flow | None:
        """None for a cookie that is not ours, or of a version with other facts in it."""
        key_id, _, sealed = cookie.partition(".")
        try:
            body = orjson.loads(self._keyring.open(key_id, bytes.fromhex(sealed), owner=_OWNER))
            return Flow(**body | {"begun_at": datetime.fromisoformat(body["begun_at"])})
        except (KeyringError, ValueError, KeyError, TypeError):
            return None


def _json(answer: Response) -> Mapping[str, Any]:
    """An object, empty where there is none."""
    try:
        body = orjson.loads(answer.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _word(body: Mapping[str, Any]) -> str:
    word = str(body.get("error", ""))[:40]
    return word if word.replace("_", "").isalpha() else "?"


def _safe(address: object) -> bool:
    """Whether a token may go there: https, or this machine."""
    if not isinstance(address, str):
        return False
    try:
        parts = urlsplit(address)
        if parts.scheme == "https" and parts.hostname:
            return True
        host = parts.hostname or ""
        return parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False


def _unavailable() -> Unavailable:
    return Unavailable(
        "oidc_unavailable", "The identity provider did not answer. Try again in a moment."
    )
