"""Requests to AWS, signed by botocore: neither by the gateway's signer nor the sandbox's."""

from collections.abc import Mapping
from datetime import datetime

from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]


def aws_headers(
    account: Mapping[str, str],
    service: str,
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    at: datetime,
) -> dict[str, str]:
    """The headers of a POST, its signature among them."""
    key = Credentials(
        account["access_key_id"], account["secret_access_key"], account.get("session_token")
    )
    auth = SigV4Auth(key, service, account["region"])
    request = AWSRequest("POST", url, data=body, headers=dict(headers))
    request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
    auth._modify_request_before_signing(request)
    to_sign = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(to_sign, request))
    return dict(request.headers.items())
