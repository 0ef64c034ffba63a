"""The generic provider, through every definition that is shipped."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from providers.cases import (
    CALLBACK,
    NOW,
    OTHER_SECRET,
    SECRET,
    ProviderCases,
    ReceiptCase,
    ResponseCase,
    SendCase,
    data,
)

from gateway.domain.delivery import State
from gateway.domain.vendor import Meaning
from gateway.ports import (
    Accepted,
    Callback,
    Malformed,
    Receipt,
    RefusalKind,
    Refused,
    Secret,
    Unknown,
)
from gateway.providers.definitions import load

DAY = 86_400.0
SECONDS = int(NOW.timestamp())
TOKEN_URL = CALLBACK.url
JSON = {"content-type": "application/json"}

DELIVERED = Receipt(
    word="delivered",
    state=State.DELIVERED,
    reference="m_1",
    attempt_id="0193-a1",
    recipient="33600000000",
)


def sample(name: str) -> Any:
    return orjson.loads(data(f"generic/{name}"))


def refusals(*odd: object, success: int = 200) -> list[ResponseCase]:
    """What every definition leaves to the common rules."""
    kinds: list[tuple[int, Refused | Unknown]] = [
        (401, Refused("unauthorized", RefusalKind.ACCOUNT)),
        (404, Refused("rejected", RefusalKind.PERMANENT)),
        (408, Refused("temporary", RefusalKind.TEMPORARY)),
        (425, Refused("temporary", RefusalKind.TEMPORARY)),
        (500, Unknown("server_error")),
        (503, Unknown("server_error")),
        (302, Unknown("odd_answer")),
    ]
    return [
        *(
            ResponseCase(
                label=f"{status}",
                status=status,
                body=b"<html>",
                expected=replace(outcome, error=f"HTTP {status}"),
            )
            for status, outcome in kinds
        ),
        ResponseCase(
            label="too fast",
            status=429,
            headers={"Retry-After": "7"},
            expected=Refused("throttled", RefusalKind.THROTTLED, 7.0, "HTTP 429"),
        ),
        *(
            ResponseCase(
                label=f"taken, without an id: {body!r}",
                status=success,
                body=body,
                expected=Unknown("no_reference", f"HTTP {success}"),
            )
            for body in (b"", b"<html>", b"[]", b"{}", *odd)
        ),
    ]


class Declared(ProviderCases):
    """What the definitions have in common; the name is not that of a test."""

    provider = "generic"
    secrets_field = "callback_secret"

    def sign(self, callback: Callback, secret: str) -> Callback:
        headers = {**callback.headers, **self.signature(callback, secret, SECONDS)}
        return replace(callback, attempt_id="0193-a1", headers=headers)

    def signature(self, callback: Callback, secret: str, at: int) -> Mapping[str, str]:
        """The headers the vendor adds."""
        raise NotImplementedError

    def stale(self, secret: str) -> Callback | None:
        good = self.genuine(secret)
        headers = self.signature(replace(good, headers={}), secret, SECONDS - 2 * int(DAY))
        return replace(good, headers={**good.headers, **headers})

    def refusal(self, message: str) -> bytes:
        return orjson.dumps({"errors": [{"code": "9", "title": message, "description": message}]})


@cache
def key(secret: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(secret.encode()).digest())


def public(secret: str) -> Secret:
    return Secret(base64.b64encode(key(secret).public_key().public_bytes_raw()).decode())


def telnyx(status: str, *codes: str, **payload: Any) -> dict[str, Any]:
    event = sample("telnyx/delivered.json")
    event["data"]["payload"]["to"][0]["status"] = status
    event["data"]["payload"] |= {"errors": [{"code": code} for code in codes], **payload}
    return dict(event)


TELNYX = replace(
    DELIVERED,
    recipient="+33600000000",
    provider_time="2026-11-21T10:00:05.000+00:00",
    cost="0.0040 USD",
)


class TestTelnyx(Declared):
    statuses = load("telnyx").table
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "sms",
        "definition": load("telnyx"),
        "secrets": {"api_key": Secret("KEY-telnyx")},
    }
    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="plain",
            url="https://api.telnyx.com/v2/messages",
            headers={**JSON, "authorization": "Bearer KEY-telnyx"},
            body={
                "to": "+33600000000",
                "text": "123456 is your code",
                "type": "SMS",
                "webhook_url": TOKEN_URL,
                "use_profile_webhooks": False,
            },
        ),
        SendCase(
            label="with a sender, elsewhere",
            url="http://127.0.0.1:8081/telnyx/v2/messages",
            headers={**JSON, "authorization": "Bearer KEY-telnyx"},
            settings={"base_url": "http://127.0.0.1:8081/telnyx/v2/"},
            change={"sender": "ACME", "text": '"}{{to}} {code}\n'},
            body={
                "from": "ACME",
                "to": "+33600000000",
                "text": '"}{{to}} {code}\n',
                "type": "SMS",
                "webhook_url": TOKEN_URL,
                "use_profile_webhooks": False,
            },
        ),
    ]
    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=200,
            body=data("generic/telnyx/accepted.json"),
            expected=Accepted("m_1", "0.0040 USD"),
        ),
        *(
            ResponseCase(
                label=f"{status} {code}",
                status=status,
                body={"errors": [{"code": code, "title": "No"}]},
                expected=replace(expected, error=f"{code}: No"),
            )
            for status, code, expected in (
                (422, "x2", Refused("rejected", RefusalKind.PERMANENT)),
                (402, "x3", Refused("account_blocked", RefusalKind.ACCOUNT)),
                (403, "x4", Refused("account_blocked", RefusalKind.ACCOUNT)),
                (500, "x5", Unknown("server_error")),
            )
        ),
        ResponseCase(
            label="no number",
            status=400,
            body=data("generic/telnyx/refused.json"),
            expected=Refused(
                "bad_destination",
                RefusalKind.PERMANENT,
                error="…: Invalid phone number",
                avoid=DAY,
            ),
        ),
        ResponseCase(
            label="opted out",
            status=400,
            body={"errors": [{"code": 40300}]},
            expected=Refused("opted_out", RefusalKind.PERMANENT, error="…", avoid=DAY),
        ),
        *refusals({"data": {"id": 7}}),
    ]
    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(
            label="delivered", body=data("generic/telnyx/delivered.json"), expected=[TELNYX]
        ),
        ReceiptCase(label="inbound", body=data("generic/telnyx/inbound.json"), expected=[]),
        *(
            ReceiptCase(
                label=f"failed: {codes}",
                body=telnyx("delivery_failed", *codes),
                expected=[
                    replace(
                        TELNYX,
                        word="delivery_failed",
                        state=State.FAILED,
                        reason=reason,
                        permanent=permanent,
                        avoid=DAY if permanent else None,
                    )
                ],
            )
            for codes, reason, permanent in (
                ((), "not_delivered", False),
                (("40001",), "not_routable", True),
                (("40002",), "spam", False),
                (("40300",), "opted_out", True),
                (("1",), "not_delivered", False),
            )
        ),
        ReceiptCase(
            label="an error beside a delivery",
            body=telnyx("delivered", "40001"),
            expected=[TELNYX],
        ),
        ReceiptCase(
            label="nobody it was for",
            body=telnyx("delivered", to=[]),
            expected=[Malformed("the status is missing or unusable", b"")],
        ),
        ReceiptCase(label="no event", body={"data": {}}, expected=[]),
        ReceiptCase(label="nothing", body=b"", expected=[Malformed("not json", b"")]),
        ReceiptCase(label="a list", body=[], expected=[Malformed("not an object", b"")]),
    ]

    def configure(self, *secrets: Secret, **changes: Any) -> Any:
        return super().configure(*(public(one) if one else one for one in secrets), **changes)

    def signature(self, callback: Callback, secret: str, at: int) -> Mapping[str, str]:
        signed = key(secret).sign(f"{at}|".encode() + callback.body)
        return {
            "telnyx-signature-ed25519": base64.b64encode(signed).decode(),
            "telnyx-timestamp": str(at),
        }

    def receipt(self, word: str) -> bytes:
        return orjson.dumps(telnyx(word))

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 200 and isinstance(answer, dict) and "id" in answer.get("data", {})

    def signature_header(self) -> str:
        return "telnyx-signature-ed25519"


def infobip(word: str, **changes: Any) -> dict[str, Any]:
    group, _, number = word.partition("/")
    status = {"groupName": group, **({"id": int(number)} if number else {})}
    return {**sample("infobip/delivered.json")["results"][0], "status": status, **changes}


INFOBIP = replace(
    DELIVERED,
    word="DELIVERED/5",
    provider_time="2026-11-21T10:00:05.000+0000",
    cost="0.01 EUR",
)


class TestInfobip(Declared):
    statuses: ClassVar[Mapping[str, Meaning]] = {
        "PENDING/3": Meaning(State.SENT),
        "PENDING/7": Meaning(State.ACK),
        "PENDING/26": Meaning(State.SENT),
        "PENDING/99": Meaning(None),
        "PENDING": Meaning(None),
        "DELIVERED/2": Meaning(State.ACK),
        "DELIVERED/5": Meaning(State.DELIVERED),
        "DELIVERED/99": Meaning(None),
        "UNDELIVERABLE/4": Meaning(State.FAILED, "not_deliverable"),
        "UNDELIVERABLE": Meaning(State.FAILED, "not_deliverable"),
        "EXPIRED/15": Meaning(State.FAILED, "expired"),
        "REJECTED/6": Meaning(State.FAILED, "rejected"),
    }
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "sms",
        "definition": load("infobip"),
        "values": {"base": "xyz9"},
        "secrets": {"api_key": Secret("key-of-infobip")},
    }
    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="plain",
            url="https://xyz9.api.infobip.com/sms/3/messages",
            headers={
                **JSON,
                "authorization": "App key-of-infobip",
                "accept": "application/json",
            },
            body={
                "messages": [
                    {
                        "destinations": [{"to": "33600000000", "messageId": "0193-a1"}],
                        "content": {"text": "123456 is your code"},
                        "options": {"validityPeriod": {"amount": 120, "timeUnit": "SECONDS"}},
                        "webhooks": {"callbackData": "0193-a1"},
                    }
                ]
            },
        )
    ]
    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=200,
            body=data("generic/infobip/accepted.json"),
            expected=Accepted("m_1"),
        ),
        ResponseCase(
            label="200, and refused in the body",
            status=200,
            body=data("generic/infobip/refused.json"),
            expected=Refused(
                "bad_destination",
                RefusalKind.PERMANENT,
                error="REJECTED_INVALID_DESTINATION: Invalid destination address",
                avoid=DAY,
            ),
        ),
        *(
            ResponseCase(
                label=f"200 {name}",
                status=200,
                body={"messages": [{"status": {"groupName": "REJECTED", "name": name}}]},
                expected=Refused(reason, kind, error=name),
            )
            for name, reason, kind in (
                ("REJECTED_NOT_ENOUGH_CREDITS", "account_blocked", RefusalKind.ACCOUNT),
                ("REJECTED_ACCOUNT_SUSPENDED", "account_blocked", RefusalKind.ACCOUNT),
                ("REJECTED_FLOODING_FILTER", "throttled", RefusalKind.THROTTLED),
                ("REJECTED_ROUTE_NOT_AVAILABLE", "rejected", RefusalKind.PERMANENT),
            )
        ),
        ResponseCase(
            label="not let in",
            status=401,
            body={"requestError": {"serviceException": {"messageId": "UNAUTHORIZED", "text": "x"}}},
            expected=Refused("unauthorized", RefusalKind.ACCOUNT, error="UNAUTHORIZED: x"),
        ),
        *refusals({"messages": [{"messageId": 7}]}),
    ]
    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(
            label="delivered", body=data("generic/infobip/delivered.json"), expected=[INFOBIP]
        ),
        ReceiptCase(
            label="handed to the operator, which is no delivery",
            body={"results": [infobip("DELIVERED/2")]},
            expected=[replace(INFOBIP, word="DELIVERED/2", state=State.ACK)],
        ),
        *(
            ReceiptCase(
                label=f"failed: {name}",
                body={"results": [infobip("UNDELIVERABLE/4", error={"name": name})]},
                expected=[
                    replace(
                        INFOBIP,
                        word="UNDELIVERABLE/4",
                        state=State.FAILED,
                        reason=reason,
                        permanent=permanent,
                        avoid=DAY if permanent else None,
                    )
                ],
            )
            for name, reason, permanent in (
                ("EC_UNKNOWN_SUBSCRIBER", "bad_destination", True),
                ("EC_ABSENT_SUBSCRIBER", "phone_off", False),
                ("EC_OTHER", "not_deliverable", False),
                (None, "not_deliverable", False),
            )
        ),
        ReceiptCase(
            label="without our id, found by Infobip's",
            body={"results": [infobip("DELIVERED/5", callbackData=None)]},
            expected=[replace(INFOBIP, attempt_id=None)],
        ),
        ReceiptCase(
            label="a hundred, three spoiled",
            body={
                "results": [
                    *[infobip("DELIVERED/5")] * 50,
                    7,
                    infobip("DELIVERED/5", messageId=None),
                    infobip("DELIVERED/5", status=[]),
                    *[infobip("PENDING/7")] * 47,
                ]
            },
            expected=[
                *[INFOBIP] * 50,
                Malformed("not an object", b""),
                Malformed("the id is missing or unusable", b""),
                Malformed("the status is missing or unusable", b""),
                *[replace(INFOBIP, word="PENDING/7", state=State.ACK)] * 47,
            ],
        ),
        ReceiptCase(label="an empty batch", body={"results": []}, expected=[]),
        *(
            ReceiptCase(label=f"no batch: {body!r}", body=body, expected=[Malformed(why, b"")])
            for body, why in (
                (b"", "not json"),
                (b"\xff", "not json"),
                ([], "no list of items"),
                ({"results": {}}, "no list of items"),
                ({"results": None}, "no list of items"),
            )
        ),
    ]

    def sign(self, callback: Callback, secret: str) -> Callback:
        return replace(callback, key=secret)

    def stale(self, secret: str) -> Callback | None:
        return None

    def receipt(self, word: str) -> bytes:
        return orjson.dumps({"results": [infobip(word)]})

    def refusal(self, message: str) -> bytes:
        return orjson.dumps({"errorCode": "E1", "description": message})

    def may_accept(self, status: int, answer: object) -> bool:
        if status != 200 or not isinstance(answer, dict):
            return False
        (first, *_) = answer["messages"]
        status_said = first.get("status")
        group = status_said.get("groupName") if isinstance(status_said, dict) else None
        return "messageId" in first and group not in ("UNDELIVERABLE", "EXPIRED", "REJECTED")

    def test_a_subscription_may_send_basic_credentials(self) -> None:
        provider = self.make(SECRET)
        for user, password, right in (
            ("infobip", SECRET, True),
            ("infobip", OTHER_SECRET, False),
            ("somebody", SECRET, False),
        ):
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            callback = replace(CALLBACK, headers={"authorization": f"Basic {pair}"})

            assert right == provider.authenticate(callback)


def sinch(**changes: Any) -> dict[str, Any]:
    return {**sample("sinch/delivered.json"), **changes}


SINCH = replace(DELIVERED, word="Delivered", provider_time="2026-11-21T10:00:05.000Z")


class TestSinch(Declared):
    statuses = load("sinch").table
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "sms",
        "definition": load("sinch"),
        "values": {"plan": "plan-7", "region": "us"},
        "secrets": {"token": Secret("token-of-sinch")},
    }
    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="plain",
            url="https://us.sms.api.sinch.com/xms/v1/plan-7/batches",
            headers={**JSON, "authorization": "Bearer token-of-sinch"},
            body={
                "to": ["+33600000000"],
                "body": "123456 is your code",
                "delivery_report": "per_recipient",
                "callback_url": TOKEN_URL,
                "client_reference": "0193-a1",
            },
        ),
        SendCase(
            label="in the region of default",
            url="https://eu.sms.api.sinch.com/xms/v1/plan-7/batches",
            headers={**JSON, "authorization": "Bearer token-of-sinch"},
            settings={"values": {"plan": "plan-7"}},
            change={"sender": "ACME"},
            body={
                "from": "ACME",
                "to": ["+33600000000"],
                "body": "123456 is your code",
                "delivery_report": "per_recipient",
                "callback_url": TOKEN_URL,
                "client_reference": "0193-a1",
            },
        ),
    ]
    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=201,
            body=data("generic/sinch/accepted.json"),
            expected=Accepted("m_1"),
        ),
        ResponseCase(
            label="no number",
            status=400,
            body=data("generic/sinch/refused.json"),
            expected=Refused(
                "bad_destination",
                RefusalKind.PERMANENT,
                error="syntax_invalid_parameter_format: The phone number is not valid",
                avoid=DAY,
            ),
        ),
        *refusals({"id": 7}, success=201),
    ]
    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label="delivered", body=data("generic/sinch/delivered.json"), expected=[SINCH]),
        ReceiptCase(
            label="a reply", body={"type": "mo_text", "id": "x", "body": "STOP"}, expected=[]
        ),
        ReceiptCase(
            label="a summary of a batch",
            body={"type": "delivery_report_sms", "batch_id": "m_1", "statuses": []},
            expected=[],
        ),
        ReceiptCase(
            label="without our reference",
            body=sinch(client_reference=None),
            expected=[SINCH],
        ),
        ReceiptCase(
            label="of another attempt",
            body=sinch(client_reference="0193-b2"),
            expected=[Malformed("names another attempt than its URL", b"")],
        ),
        ReceiptCase(
            label="another case of letters",
            body=sinch(status="delivered"),
            expected=[replace(SINCH, word="delivered", state=None)],
        ),
    ]

    def signature(self, callback: Callback, secret: str, at: int) -> Mapping[str, str]:
        signed = callback.body + f".nonce-1.{at}".encode()
        mac = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
        name = "x-sinch-webhook-signature"
        return {
            name: base64.b64encode(mac).decode(),
            f"{name}-nonce": "nonce-1",
            f"{name}-timestamp": str(at),
            f"{name}-algorithm": "HmacSHA256",
        }

    def receipt(self, word: str) -> bytes:
        return orjson.dumps(sinch(status=word))

    def refusal(self, message: str) -> bytes:
        return orjson.dumps({"code": "x", "text": message})

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 201 and isinstance(answer, dict) and "id" in answer

    def signature_header(self) -> str:
        return "x-sinch-webhook-signature"


def plivo(**changes: str) -> bytes:
    return urlencode(
        dict(parse_qsl(data("generic/plivo/delivered.txt").decode())) | changes
    ).encode()


PLIVO = replace(DELIVERED, provider_time="2026-11-21T10:00:05.123456Z", cost="0.00650")


class TestPlivo(Declared):
    statuses = load("plivo").table
    unpromised = frozenset({State.READ})  # WhatsApp alone has it
    speaks_json = False
    signs_url = True
    unusable: ClassVar[Sequence[object]] = ("", " ", "x" * 256, "m\x00")
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "sms",
        "definition": load("plivo"),
        "values": {"auth_id": "MA1"},
        "secrets": {"auth_token": Secret("token-of-plivo")},
    }
    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="plain",
            url="https://api.plivo.com/v1/Account/MA1/Message/",
            headers={**JSON, "authorization": "Basic TUExOnRva2VuLW9mLXBsaXZv"},
            change={"sender": "ACME"},
            body={
                "src": "ACME",
                "dst": "33600000000",
                "text": "123456 is your code",
                "type": "sms",
                "url": TOKEN_URL,
                "method": "POST",
                "log": "false",
            },
        )
    ]
    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=202,
            body=data("generic/plivo/accepted.json"),
            expected=Accepted("m_1"),
        ),
        ResponseCase(
            label="refused",
            status=400,
            body=data("generic/plivo/refused.json"),
            expected=Refused("rejected", RefusalKind.PERMANENT, error="dst is not a valid number"),
        ),
        ResponseCase(
            label="no credit",
            status=402,
            expected=Refused("no_credit", RefusalKind.ACCOUNT, error="HTTP 402"),
        ),
        *refusals({"message_uuid": [7]}, success=202),
    ]
    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label="delivered", body=data("generic/plivo/delivered.txt"), expected=[PLIVO]),
        *(
            ReceiptCase(
                label=f"failed: {code}",
                body=plivo(Status="undelivered", ErrorCode=code),
                expected=[
                    replace(
                        PLIVO,
                        word="undelivered",
                        state=State.FAILED,
                        reason=reason,
                        permanent=permanent,
                        avoid=DAY if permanent else None,
                    )
                ],
            )
            for code, reason, permanent in (
                ("40", "bad_destination", True),
                ("200", "opted_out", True),
                ("50", "spam", False),
                ("", "not_delivered", False),
                ("1", "not_delivered", False),
            )
        ),
        ReceiptCase(
            label="a time of another form is kept as it came",
            body=plivo(DeliveryReportTime="yesterday"),
            expected=[replace(PLIVO, provider_time="yesterday")],
        ),
        ReceiptCase(
            label="a status twice",
            body=plivo() + b"&Status=failed",
            expected=[Malformed("the status is missing or unusable", b"")],
        ),
        ReceiptCase(label="JSON", body=b"{}", expected=[Malformed("not form", b"")]),
        ReceiptCase(
            label="nothing",
            body=b"",
            expected=[Malformed("the id is missing or unusable", b"")],
        ),
    ]

    def signature(self, callback: Callback, secret: str, at: int) -> Mapping[str, str]:
        fields = parse_qsl(callback.body.decode(errors="replace"), keep_blank_values=True)
        text = callback.url + ("?" if fields else "")
        text += "".join(name + value for name, value in sorted(fields)) + ".nonce-1"
        mac = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
        name = "x-plivo-signature-v3"
        return {name: base64.b64encode(mac).decode(), f"{name}-nonce": "nonce-1"}

    def stale(self, secret: str) -> Callback | None:
        return None  # no time is signed

    def receipt(self, word: str) -> bytes:
        return plivo(Status=word)

    def refer(self, body: bytes, reference: object) -> bytes:
        return body.replace(b"m_1", urlencode({"": str(reference)}).encode()[1:])

    def refusal(self, message: str) -> bytes:
        return orjson.dumps({"error": message})

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 202 and isinstance(answer, dict) and bool(answer.get("message_uuid"))

    def signature_header(self) -> str:
        return "x-plivo-signature-v3"

    def test_one_signature_of_a_list_is_enough(self) -> None:
        good = self.genuine(SECRET)
        name = self.signature_header()
        for written, right in (
            (f"b3RoZXI=,{good.headers[name]}", True),
            (f"{good.headers[name]},b3RoZXI=", True),
            (f"b3RoZXI= {good.headers[name]}", False),
        ):
            callback = replace(good, headers={**good.headers, name: written})

            assert right == self.make(SECRET).authenticate(callback)


def b64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def messagebird(**changes: str) -> bytes:
    fields = dict(parse_qsl(data("generic/messagebird/delivered.txt").decode()))
    return urlencode(fields | changes).encode()


MESSAGEBIRD = replace(DELIVERED, provider_time="2026-11-21T10:00:05+00:00", cost="0.075 EUR")


class TestMessageBird(Declared):
    statuses = load("messagebird").table
    speaks_json = False
    signs_url = True
    signs_body = False  # there is none
    unusable: ClassVar[Sequence[object]] = ("", " ", "x" * 256, "m\x00")
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "sms",
        "definition": load("messagebird"),
        "secrets": {"access_key": Secret("key-of-messagebird")},
    }
    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="plain",
            url="https://rest.messagebird.com/messages",
            headers={**JSON, "authorization": "AccessKey key-of-messagebird"},
            change={"sender": "ACME"},
            body={
                "originator": "ACME",
                "recipients": ["33600000000"],
                "body": "123456 is your code",
                "reference": "0193-a1",
                "reportUrl": TOKEN_URL,
                "validity": 120,
            },
        )
    ]
    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=201,
            body=data("generic/messagebird/accepted.json"),
            expected=Accepted("m_1"),
        ),
        ResponseCase(
            label="refused",
            status=422,
            body=data("generic/messagebird/refused.json"),
            expected=Refused(
                "rejected", RefusalKind.PERMANENT, error="10: no (correct) recipients found"
            ),
        ),
        *(
            ResponseCase(
                label=f"code {code}",
                status=422,
                body={"errors": [{"code": code}]},
                expected=Refused(reason, RefusalKind.ACCOUNT, error=str(code)),
            )
            for code, reason in ((2, "unauthorized"), (25, "no_credit"))
        ),
        *refusals({"id": 7}, success=201),
    ]
    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(
            label="delivered",
            body=data("generic/messagebird/delivered.txt"),
            expected=[MESSAGEBIRD],
        ),
        *(
            ReceiptCase(
                label=f"failed: {code}",
                body=messagebird(status="delivery_failed", statusErrorCode=code),
                expected=[
                    replace(
                        MESSAGEBIRD,
                        word="delivery_failed",
                        state=State.FAILED,
                        reason=reason,
                        permanent=permanent,
                        avoid=DAY if permanent else None,
                    )
                ],
            )
            for code, reason, permanent in (
                ("1", "bad_destination", True),
                ("27", "phone_off", False),
                ("", "not_delivered", False),
            )
        ),
        ReceiptCase(
            label="of another attempt",
            body=messagebird(reference="0193-b2"),
            expected=[Malformed("names another attempt than its URL", b"")],
        ),
        ReceiptCase(label="no receipt", body=b"{}", expected=[]),
    ]

    def sign(self, callback: Callback, secret: str) -> Callback:
        """Everything stands in the URL."""
        text = callback.body.decode("latin-1")
        asked = replace(
            callback,
            method="GET",
            url=f"{callback.url}?{text}",
            query=dict(parse_qsl(text, keep_blank_values=True)),
            body=b"",
        )
        return super().sign(asked, secret)

    def signature(self, callback: Callback, secret: str, at: int) -> Mapping[str, str]:
        claims = {
            "iss": "MessageBird",
            "nbf": at,
            "exp": at + 60,
            "jti": "j-1",
            "url_hash": hashlib.sha256(callback.url.encode()).hexdigest(),
        }
        return {"messagebird-signature-jwt": token(claims, secret)}

    def receipt(self, word: str) -> bytes:
        return messagebird(status=word)

    def refer(self, body: bytes, reference: object) -> bytes:
        return body.replace(b"m_1", urlencode({"": str(reference)}).encode()[1:])

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 201 and isinstance(answer, dict) and "id" in answer

    def signature_header(self) -> str:
        return "messagebird-signature-jwt"


def token(claims: Mapping[str, object], secret: str, algorithm: str = "HS256") -> str:
    parts = [{"alg": algorithm, "typ": "JWT"}, claims]
    content = ".".join(b64url(orjson.dumps(part)) for part in parts)
    hashes = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
    mac = hmac.new(secret.encode(), content.encode(), hashes.get(algorithm, "sha256"))
    return f"{content}.{b64url(mac.digest())}"


def bird(**changes: Any) -> dict[str, Any]:
    event = sample("bird/delivered.json")
    return {**event, "payload": {**event["payload"], **changes}}


BIRD = replace(
    DELIVERED,
    attempt_id=None,
    recipient="+33600000000",
    provider_time="2026-11-21T10:00:05.000Z",
)


class TestBird(Declared):
    statuses = load("bird").table
    signs_url = True
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "sms",
        "definition": load("bird"),
        "values": {"workspace": "w-1", "channel_id": "c-1"},
        "secrets": {"access_key": Secret("key-of-bird")},
    }
    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(
            label="plain",
            url="https://api.bird.com/workspaces/w-1/channels/c-1/messages",
            headers={**JSON, "authorization": "AccessKey key-of-bird"},
            body={
                "receiver": {
                    "contacts": [
                        {"identifierKey": "phonenumber", "identifierValue": "+33600000000"}
                    ]
                },
                "body": {"type": "text", "text": {"text": "123456 is your code"}},
                "reference": "0193-a1",
            },
        )
    ]
    responses: ClassVar[Sequence[ResponseCase]] = [
        *(
            ResponseCase(
                label=f"taken: {status}",
                status=status,
                body=data("generic/bird/accepted.json"),
                expected=Accepted("m_1"),
            )
            for status in (200, 202)
        ),
        ResponseCase(
            label="no number",
            status=422,
            body=data("generic/bird/refused.json"),
            expected=Refused(
                "bad_destination",
                RefusalKind.PERMANENT,
                error="InvalidPhoneNumber: The phone number is not valid",
                avoid=DAY,
            ),
        ),
        ResponseCase(
            label="taken, and rejected in the body",
            status=202,
            body={"id": "m_1", "status": "rejected"},
            expected=Refused("rejected", RefusalKind.PERMANENT, error="HTTP 202"),
        ),
        *refusals({"id": 7}, success=202),
    ]
    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label="delivered", body=data("generic/bird/delivered.json"), expected=[BIRD]),
        ReceiptCase(
            label="another event", body={"event": "sms.inbound", "payload": {}}, expected=[]
        ),
        ReceiptCase(label="no payload", body={"event": "sms.outbound"}, expected=[]),
    ]

    def signature(self, callback: Callback, secret: str, at: int) -> Mapping[str, str]:
        signed = f"{at}\n{callback.url}\n".encode() + hashlib.sha256(callback.body).digest()
        mac = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
        return {
            "messagebird-signature": base64.b64encode(mac).decode(),
            "messagebird-request-timestamp": str(at),
        }

    def receipt(self, word: str) -> bytes:
        return orjson.dumps(bird(status=word))

    def refusal(self, message: str) -> bytes:
        return orjson.dumps({"code": "x", "message": message})

    def may_accept(self, status: int, answer: object) -> bool:
        if not isinstance(answer, dict) or "id" not in answer:
            return False
        return status in (200, 202) and answer.get("status") not in ("rejected", "sending_failed")

    def signature_header(self) -> str:
        return "messagebird-signature"
