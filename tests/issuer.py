"""An identity provider for tests: OpenID Connect as its clients see it, served on a real socket.

It signs with RSA by `cryptography`, shares no code with the gateway, and is strict: a code is
taken once, from its own client, for its own address, with the verifier of its challenge.
"""

import contextlib
import hashlib
import hmac
import secrets
import socket
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import orjson
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway.app import process

CLIENT = "console of ours"  # a blank: it has to be quoted in an Authorization header
SECRET = "a+secret/with:signs"


def encoded(raw: bytes) -> str:
    """Base64 as JOSE writes it."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@cache
def _made(name: str) -> rsa.RSAPrivateKey:
    """A key of that name, made once: it takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Key:
    """An RSA key with its id; of one name there is one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._key = _made(name)

    @property
    def public(self) -> dict[str, str]:
        numbers = self._key.public_key().public_numbers()
        return {
            "kty": "RSA",
            "use": "sig",
            "kid": self.name,
            "n": encoded(numbers.n.to_bytes(256, "big")),
            "e": encoded(numbers.e.to_bytes(3, "big")),
        }

    def sign(self, text: bytes) -> bytes:
        return self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())


@dataclass
class Issuer:
    """The provider. `person`: the claims of who logs in; `changes`: what a token says otherwise."""

    now: Callable[[], datetime]
    address: str = ""
    person: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    method: str = "client_secret_basic"
    asked: list[dict[str, str]] = field(default_factory=list)  # queries of the login page
    key: Key = field(default_factory=lambda: Key("first"))
    signs: Key | None = None  # another key than the one it publishes
    logged_in_at: datetime | None = None  # None: just now
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def web(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.configuration),
                Route("/login", self.login),
                Route("/token", self.token, methods=["POST"]),
                Route("/keys", self.keys),
            ]
        )

    async def configuration(self, request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.address,
                "authorization_endpoint": f"{self.address}/login",
                "token_endpoint": f"{self.address}/token",
                "jwks_uri": f"{self.address}/keys",
                "token_endpoint_auth_methods_supported": [self.method],
            }
        )

    async def keys(self, request: Request) -> Response:
        return JSONResponse({"keys": [self.key.public]})

    async def login(self, request: Request) -> Response:
        """Whoever comes is logged in and sent back with a code."""
        asked = dict(request.query_params)
        self.asked.append(asked)
        if asked["client_id"] != CLIENT or asked["code_challenge_method"] != "S256":
            return Response(status_code=400)
        if asked.get("prompt") == "login":
            self.logged_in_at = None
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.address}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 302)

    async def token(self, request: Request) -> Response:
        given = dict(parse_qsl((await request.body()).decode()))
        asked = self._codes.pop(given["code"], None)
        digest = hashlib.sha256(given["code_verifier"].encode()).digest()
        if not self._proven(request, given):
            return JSONResponse({"error": "invalid_client"}, 401)
        if (
            asked is None
            or encoded(digest) != asked["code_challenge"]
            or given["redirect_uri"] != asked["redirect_uri"]
            or given["grant_type"] != "authorization_code"
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        token = self.signed(asked["nonce"])
        return JSONResponse({"id_token": token, "access_token": "x", "token_type": "Bearer"})

    def _proven(self, request: Request, given: dict[str, str]) -> bool:
        if self.method == "none":
            return given.get("client_id") == CLIENT and "client_secret" not in given
        if self.method == "client_secret_post":
            return (given["client_id"], given["client_secret"]) == (CLIENT, SECRET)
        kind, _, pair = request.headers["authorization"].partition(" ")
        name, _, secret = b64decode(pair).decode().partition(":")
        return (kind, unquote(name), unquote(secret)) == ("Basic", CLIENT, SECRET)

    def signed(self, nonce: str) -> str:
        """An ID token."""
        now = int(self.now().timestamp())
        claims = {
            "iss": self.address,
            "aud": CLIENT,
            "exp": now + 300,
            "iat": now,
            "auth_time": int((self.logged_in_at or self.now()).timestamp()),
            "nonce": nonce,
            **self.person,
            **self.changes,
        }
        claims = {name: claim for name, claim in claims.items() if claim is not None}
        key = self.signs or self.key
        header = {"alg": "RS256", "typ": "JWT", "kid": self.key.name, **self.header}
        text = f"{encoded(orjson.dumps(header))}.{encoded(orjson.dumps(claims))}".encode()
        if header["alg"] == "none":
            signature = b""
        elif header["alg"] == "HS256":
            signature = hmac.digest(SECRET.encode(), text, "sha256")
        else:
            signature = key.sign(text)
        return f"{text.decode()}.{encoded(signature)}"


@contextlib.asynccontextmanager
async def issuing(now: Callable[[], datetime]) -> AsyncGenerator[Issuer]:
    """One that serves, on a port of this machine."""
    issuer = Issuer(now)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        issuer.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with process.served(issuer.web, listening, grace=1):
            yield issuer
