"""The signature of an ID token, by joserfc: the extra `oidc`, imported only where it is wanted."""

from collections.abc import Iterator, Mapping
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import import_key

# What a provider signs with. Never a symmetric one: its key would be our own client secret, and
# with `none` anybody's token would do.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
_WRONG = (JoseError, ValueError, TypeError, KeyError)  # what others may have written


def signed(token: str, keys: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The claims of a token, or None when no key of the set (RFC 7517) has signed it."""
    for key in _named(token, keys):
        try:
            return jwt.decode(token, import_key(key), algorithms=ALGORITHMS).claims
        except _WRONG:
            continue  # a set may hold several keys, and one that is not ours to understand
    return None


def _named(token: str, keys: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The public keys that the token's header means: one by its id, or all."""
    try:
        named = jws.extract_compact(token.encode()).headers().get("kid")
    except _WRONG:
        return
    listed = keys.get("keys")
    for key in listed if isinstance(listed, list) else ():
        if not isinstance(key, dict) or key.get("kty") not in {"RSA", "EC"}:
            continue
        if key.get("use", "sig") == "sig" and (named is None or key.get("kid", named) == named):
            yield key
