"""Who sent a request to AWS: Signature Version 4, looked at from the other side.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

Everything is recomputed from the request as it arrived, with the headers it says it signed.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from urllib.parse import quote

from starlette.requests import Request

SKEW = 300  # seconds a request may be old, or ahead

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,\s]+)/(?P<day>[0-9]{8})/(?P<region>[^/,\s]+)"
    r"/(?P<service>[^/,\s]+)/aws4_request, ?"
    r"SignedHeaders=(?P<names>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")


class Denial(Enum):
    """Why it is not let in: the error's name in the JSON and in the Query protocol."""

    UNSIGNED = ("MissingAuthenticationTokenException", "MissingAuthenticationToken")
    INCOMPLETE = ("IncompleteSignatureException", "IncompleteSignature")
    UNKNOWN = ("UnrecognizedClientException", "InvalidClientTokenId")
    WRONG = ("InvalidSignatureException", "SignatureDoesNotMatch")


class Denied(Exception):
    """A request that is not let in."""

    def __init__(self, denial: Denial, message: str) -> None:
        super().__init__(denial, message)
        self.denial = denial
        self.message = message


def check(
    request: Request, body: bytes, account: Mapping[str, str], service: str, now: datetime
) -> None:
    """Raise Denied unless the account signed this request for this service, just now."""
    header = request.headers.get("authorization")
    if header is None:
        raise Denied(Denial.UNSIGNED, "Request is missing Authentication Token")
    said = _AUTHORIZATION.fullmatch(header)
    stamp = request.headers.get("x-amz-date", "")
    if said is None or not _STAMP.fullmatch(stamp):
        raise Denied(Denial.INCOMPLETE, "Authorization header or x-amz-date is malformed.")
    _check_client(request, said["key"], account)
    scope = f"{stamp[:8]}/{account['region']}/{service}/aws4_request"
    if scope != f"{said['day']}/{said['region']}/{said['service']}/aws4_request":
        raise Denied(Denial.WRONG, f"Credential should be scoped to {scope}.")
    sent = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if abs((now - sent).total_seconds()) > SKEW:
        raise Denied(Denial.WRONG, f"Signature expired: {stamp} is not near {now.isoformat()}.")
    names = said["names"].split(";")
    _check_covered(request, names)
    digest = hashlib.sha256(_canonical(request, names, body)).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    right = _mac(_signing_key(account["secret_access_key"], scope), to_sign).hex()
    if not hmac.compare_digest(right, said["signature"]):
        raise Denied(
            Denial.WRONG,
            "The request signature we calculated does not match the signature you provided.",
        )


def _check_client(request: Request, key: str, account: Mapping[str, str]) -> None:
    token = request.headers.get("x-amz-security-token", "")
    known = hmac.compare_digest(key.encode(), account["access_key_id"].encode())
    known &= hmac.compare_digest(token.encode(), account.get("session_token", "").encode())
    if not known:
        raise Denied(Denial.UNKNOWN, "The security token included in the request is invalid.")


def _check_covered(request: Request, names: list[str]) -> None:
    """Host, content type and every x-amz-… header must be among the signed ones, in order."""
    needed = {"host"} | {
        name for name in request.headers if name == "content-type" or name.startswith("x-amz-")
    }
    if names != sorted(set(names)) or not needed <= set(names):
        raise Denied(Denial.WRONG, "A header that must be signed is not.")


def _canonical(request: Request, names: list[str], body: bytes) -> bytes:
    path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1")
    query = sorted(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in request.query_params.multi_items()
    )
    headers = "".join(
        f"{name}:{','.join(' '.join(value.split()) for value in request.headers.getlist(name))}\n"
        for name in names
    )
    hashed = hashlib.sha256(body).hexdigest()
    return (
        f"{request.method}\n{quote(path, safe='/-_.~')}\n{'&'.join(query)}\n{headers}\n"
        f"{';'.join(names)}\n{hashed}"
    ).encode()


def _signing_key(secret: str, scope: str) -> bytes:
    day, region, service, end = scope.split("/")
    return _mac(_mac(_mac(_mac(f"AWS4{secret}".encode(), day), region), service), end)


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
