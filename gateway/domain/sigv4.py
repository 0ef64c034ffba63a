"""AWS Signature Version 4 of a POST without a query: proves whose request it is, for five minutes.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key; `session_token` belongs to a temporary one."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signature is good for, beside its day."""

    region: str
    service: str


def sign(
    credentials: Credentials,
    scope: Scope,
    at: datetime,
    *,
    host: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
) -> dict[str, str]:
    """The headers that sign a request at `at`, to be added to it.

    `headers`, named in lower case, are covered beside the host and what is added. `path` is as it
    goes over the wire.
    """
    stamp = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-date": stamp}
    if credentials.session_token:
        added["x-amz-security-token"] = credentials.session_token
    covered = {**headers, **added, "host": host}
    names = ";".join(sorted(covered))
    within = f"{stamp[:8]}/{scope.region}/{scope.service}/aws4_request"
    to_sign = "\n".join((ALGORITHM, stamp, within, _digest(_canonical(path, covered, body))))
    key = _key(credentials.secret_access_key, within)
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    added["authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{within}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return added


def _canonical(path: str, covered: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{name}:{' '.join(covered[name].split())}" for name in sorted(covered)]
    again = quote(path, safe="/-._~")  # every service but S3 has it encoded twice
    parts = ("POST", again, "", *lines, "", ";".join(sorted(covered)), _digest(body))
    return "\n".join(parts).encode()


def _key(secret: str, within: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in within.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
