"""WhatsApp, over Meta's Cloud API."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import orjson
import pytest
from providers.cases import (
    CALLBACK,
    OTHER_SECRET,
    SECRET,
    ProviderCases,
    ReceiptCase,
    ResponseCase,
    SendCase,
    data,
    encoded,
)

from gateway import config
from gateway.domain.delivery import State
from gateway.ports import (
    Accepted,
    Callback,
    Malformed,
    Receipt,
    RefusalKind,
    Refused,
    Reply,
    Response,
    Secret,
    Unknown,
)
from gateway.providers.whatsapp import Whatsapp, nearest

HEADER = "x-hub-signature-256"
HEADERS = {"authorization": "Bearer the-token", "content-type": "application/json"}
NUMBER = "106540352242922"
URL = f"https://graph.facebook.com/v25.0/{NUMBER}/messages"
VERIFY = Secret("verify-token-of-this-app")
DAY = 86_400.0

TEMPLATES = {
    "default": {"en_US": "otp_code", "fr": "otp_code", "pt_BR": "otp_code", "pt_PT": "otp_pt"},
    "login": {"en_US": "otp_login"},
}
CODE = [{"type": "text", "text": "123456"}]


def message(name: str, language: str) -> dict[str, object]:
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "+33600000000",
        "type": "template",
        "template": {
            "name": name,
            "language": {"code": language},
            "components": [
                {"type": "body", "parameters": CODE},
                {"type": "button", "sub_type": "url", "index": "0", "parameters": CODE},
            ],
        },
        "biz_opaque_callback_data": "0193-a1",
    }


# The sheet's table of errors, written out again: code → reason, kind (None: unknown outcome).
PERMANENT, TEMPORARY = RefusalKind.PERMANENT, RefusalKind.TEMPORARY
ACCOUNT, THROTTLED = RefusalKind.ACCOUNT, RefusalKind.THROTTLED
ERRORS: Sequence[tuple[int, str, RefusalKind | None]] = [
    (0, "unauthorized", ACCOUNT),
    (1, "server_error", None),
    (2, "server_error", None),
    (3, "not_permitted", ACCOUNT),
    (4, "throttled", THROTTLED),
    (10, "not_permitted", ACCOUNT),
    (100, "bad_request", PERMANENT),
    (190, "unauthorized", ACCOUNT),
    (200, "not_permitted", ACCOUNT),
    (299, "not_permitted", ACCOUNT),
    (368, "account_blocked", ACCOUNT),
    (80007, "throttled", THROTTLED),
    (130429, "throttled", THROTTLED),
    (130472, "withheld", PERMANENT),
    (130497, "country_not_allowed", PERMANENT),
    (131000, "not_processed", TEMPORARY),
    (131008, "bad_request", PERMANENT),
    (131009, "bad_request", PERMANENT),
    (131016, "not_processed", TEMPORARY),
    (131021, "bad_destination", PERMANENT),
    (131026, "unreachable", PERMANENT),
    (131030, "not_on_test_list", ACCOUNT),
    (131031, "account_blocked", ACCOUNT),
    (131037, "sender_not_approved", ACCOUNT),
    (131042, "no_credit", ACCOUNT),
    (131044, "no_credit", ACCOUNT),
    (131045, "bad_certificate", ACCOUNT),
    (131047, "template_required", ACCOUNT),
    (131048, "sender_restricted", ACCOUNT),
    (131049, "withheld", PERMANENT),
    (131050, "opted_out", PERMANENT),
    (131051, "bad_request", ACCOUNT),
    (131052, "bad_request", ACCOUNT),
    (131053, "bad_request", ACCOUNT),
    (131056, "pair_limit", PERMANENT),
    (131057, "maintenance", TEMPORARY),
    (131064, "account_limited", ACCOUNT),
    (132000, "bad_template", ACCOUNT),
    (132001, "no_template", ACCOUNT),
    (132005, "bad_template", ACCOUNT),
    (132007, "bad_template", ACCOUNT),
    (132008, "bad_template", ACCOUNT),
    (132012, "bad_template", ACCOUNT),
    (132015, "template_paused", ACCOUNT),
    (132016, "template_disabled", ACCOUNT),
    (133016, "throttled", THROTTLED),
    (135000, "not_processed", TEMPORARY),
    (137000, "identity_changed", PERMANENT),
]

NO_ID: Sequence[object] = (
    b"",
    b"<html>OK</html>",
    b'{"messages":',
    [],
    {},
    {"messages": None},
    {"messages": {}},
    {"messages": []},
    {"messages": ["wamid.1"]},
    {"messages": [{}]},
    {"messages": [{"id": 7}]},
    {"messages": [{"id": "x" * 256}]},
)
NO_ERROR: Sequence[object] = ({"error": "no"}, {"error": None}, {"error": {}}, b"<html>", [])
NO_ERRORS: Sequence[object] = (None, [], {}, "no", [None], [7], [{}], [{"code": "131026"}])
NO_ENTRY: Sequence[object] = (7, None, {}, {"changes": None}, {"changes": {}})
NO_METADATA: Sequence[object] = (None, {}, 7)
NO_WEBHOOK: Sequence[object] = (
    b"",
    b"hello",
    b"\xff",
    [],
    {},
    {"object": None, "entry": []},
    {"object": "whatsapp_business_account"},
    {"object": "whatsapp_business_account", "entry": {}},
)

DELIVERED = Receipt(
    word="delivered",
    state=State.DELIVERED,
    reference="m_1",
    attempt_id="0193-a1",
    provider_time="1750263773",
)


def avoided(code: int) -> float | None:
    return DAY if code == 131026 else None


def error(code: object, text: str = "No", **more: object) -> dict[str, object]:
    return {"error": {"message": text, "type": "OAuthException", "code": code, **more}}


def refused(code: int, reason: str, kind: RefusalKind | None) -> Refused | Unknown:
    if kind is None:
        return Unknown(reason, f"{code} No")
    return Refused(reason, kind, error=f"{code} No", avoid=avoided(code))


def item(**changes: object) -> dict[str, object]:
    """One status, as in the vendor's sample."""
    sample = orjson.loads(data("whatsapp/status.json"))
    return {**sample["entry"][0]["changes"][0]["value"]["statuses"][0], **changes}


def without(field: str) -> dict[str, object]:
    return {key: value for key, value in item().items() if key != field}


def value(*items: object, number: str = NUMBER, **more: object) -> dict[str, object]:
    metadata = {"display_phone_number": "15550783881", "phone_number_id": number}
    return {"messaging_product": "whatsapp", "metadata": metadata, "statuses": items, **more}


def change(content: object, field: object = "messages") -> dict[str, object]:
    return {"field": field, "value": content}


def entry(*changes: object) -> dict[str, object]:
    return {"id": "102290129340398", "changes": changes}


def webhook(*entries: object) -> dict[str, object]:
    return {"object": "whatsapp_business_account", "entry": entries}


def batch(*items: object) -> dict[str, object]:
    return webhook(entry(change(value(*items))))


def failed(*errors: object) -> dict[str, object]:
    return batch(item(status="failed", errors=list(errors)))


FAILED = replace(DELIVERED, word="failed", state=State.FAILED, reason="not_delivered")


def signature(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class TestWhatsapp(ProviderCases):
    provider = "whatsapp"
    secrets_field = "callback_secret"
    statuses = Whatsapp.statuses
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "whatsapp",
        "phone_number_id": NUMBER,
        "token": Secret("the-token"),
        "verify_token": (VERIFY,),
        "templates": TEMPLATES,
    }

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(label="plain", url=URL, headers=HEADERS, body=message("otp_code", "en_US")),
        SendCase(
            label="neither text, sender nor validity are said",
            url=URL,
            headers=HEADERS,
            change={"sender": "ACME", "validity": 60, "text": "never sent"},
            body=message("otp_code", "en_US"),
        ),
        *(
            SendCase(
                label=f"{purpose} in {locale}",
                url=URL,
                headers=HEADERS,
                change={"template": purpose, "locale": locale},
                body=message(name, language),
            )
            for purpose, locale, name, language in (
                ("verify", "fr", "otp_code", "fr"),
                ("verify", "fr-CA", "otp_code", "fr"),
                ("verify", "pt-PT", "otp_pt", "pt_PT"),
                ("verify", "pt", "otp_code", "pt_BR"),
                ("verify", "ja", "otp_code", "en_US"),
                ("login", "en", "otp_login", "en_US"),
                ("login", "fr", "otp_login", "en_US"),
            )
        ),
        SendCase(
            label="elsewhere, another version",
            url="http://localhost:8026/whatsapp/v24.0/1/messages",
            headers=HEADERS,
            settings={
                "base_url": "http://localhost:8026/whatsapp/",
                "version": "v24.0",
                "phone_number_id": "1",
                "language": "fr",
                "templates": {"default": {"fr": "otp"}},
            },
            body=message("otp", "fr"),
        ),
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(
            label="taken",
            status=200,
            body=data("whatsapp/accepted.json"),
            expected=Accepted("wamid.HBgLMzM2MDAwMDAwMDAVAgARGBI1"),
        ),
        *(
            ResponseCase(
                label=f"taken, {word}",
                status=200,
                body={"messages": [{"id": "wamid.1", "message_status": word}]},
                expected=Accepted("wamid.1"),
            )
            for word in ("held_for_quality_assessment", "paused", "anything", None)
        ),
        *(
            ResponseCase(
                label=f"200 without an id: {body!r}"[:60],
                status=200,
                body=body,
                expected=Unknown("no_message_id", "HTTP 200"),
            )
            for body in NO_ID
        ),
        *(
            ResponseCase(
                label=f"error {code}, {status}",
                status=status,
                body=error(code),
                expected=refused(code, reason, kind),
            )
            for code, reason, kind in ERRORS
            for status in (400, 500)  # the code decides, not the HTTP status
        ),
        ResponseCase(
            label="undeliverable, the number not repeated",
            status=400,
            body=data("whatsapp/undeliverable.json"),
            expected=Refused(
                "unreachable",
                PERMANENT,
                error="131026 (#…) Message undeliverable: Message to … is undeliverable.",
                avoid=DAY,
            ),
        ),
        *(
            ResponseCase(
                label=f"too fast: {pause!r}",
                status=429,
                body=error(130429),
                headers={} if pause is None else {"Retry-After": pause},
                expected=Refused("throttled", THROTTLED, seconds, "130429 No"),
            )
            for pause, seconds in ((None, None), ("7", 7.0), ("soon", None), ("9" * 9, DAY))
        ),
        ResponseCase(
            label="too fast, nothing more said",
            status=429,
            headers={"Retry-After": "2"},
            expected=Refused("throttled", THROTTLED, 2.0, "HTTP 429"),
        ),
        *(
            ResponseCase(
                label=f"not let in: {status}",
                status=status,
                expected=Refused("unauthorized", ACCOUNT, error=f"HTTP {status}"),
            )
            for status in (401, 403)
        ),
        *(
            ResponseCase(
                label=f"an error nobody knows: {code!r}",
                status=400,
                body=error(code),
                expected=Refused("rejected", PERMANENT, error=shown),
            )
            for code, shown in (
                (131999, "131999 No"),
                (33612345678, "No"),  # never a number
                (-1, "No"),
                ("131026", "No"),
                (131026.0, "No"),
                (True, "No"),
                (None, "No"),
                ([], "No"),
            )
        ),
        *(
            ResponseCase(
                label=f"an error that is none: {body!r}",
                status=400,
                body=body,
                expected=Refused("rejected", PERMANENT, error="HTTP 400"),
            )
            for body in NO_ERROR
        ),
        *(
            ResponseCase(
                label=f"{status}",
                status=status,
                body=data("whatsapp/accepted.json"),
                expected=Unknown(reason, f"HTTP {status}"),
            )
            for status, reason in (
                (201, "odd_answer"),
                (204, "odd_answer"),
                (302, "odd_answer"),
                (500, "server_error"),
                (503, "server_error"),
            )
        ),
        ResponseCase(
            label="a server error nobody knows",
            status=500,
            body=error(131999),
            expected=Unknown("server_error", "131999 No"),
        ),
        ResponseCase(
            label="an error that comes as a success",
            status=200,
            body=error(131026),
            expected=Unknown("no_message_id", "131026 No"),
        ),
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label="sample", body=data("whatsapp/status.json"), expected=[DELIVERED]),
        ReceiptCase(
            label="sample of a failure",
            body=data("whatsapp/failed.json"),
            expected=[replace(FAILED, reason="unreachable", permanent=True, avoid=DAY)],
        ),
        *(
            ReceiptCase(
                label=word,
                body=batch(item(status=word)),
                expected=[replace(DELIVERED, word=word, state=state)],
            )
            for word, state in (
                ("sent", State.ACK),
                ("delivered", State.DELIVERED),
                ("read", State.READ),
                ("deleted", None),
                ("warning", None),
                ("played", None),
                ("READ", None),
            )
        ),
        *(
            ReceiptCase(
                label=f"failed with {code}",
                body=failed({"code": code, "title": "T", "error_data": {"details": "D"}}),
                expected=[
                    replace(FAILED, reason=reason, permanent=kind is PERMANENT, avoid=avoided(code))
                ],
            )
            for code, reason, kind in ERRORS
        ),
        *(
            ReceiptCase(
                label=f"failed, errors: {errors!r}",
                body=batch(item(status="failed", errors=errors)),
                expected=[FAILED],
            )
            for errors in NO_ERRORS
        ),
        ReceiptCase(
            label="failed, the first known error counts",
            body=failed(None, {"code": 131999}, {"code": 131049}, {"code": 131026}),
            expected=[replace(FAILED, reason="withheld", permanent=True)],
        ),
        ReceiptCase(
            label="failed, nothing said",
            body=batch({**without("pricing"), "status": "failed"}),
            expected=[FAILED],
        ),
        ReceiptCase(
            label="an error beside a delivery",
            body=batch(item(errors=[{"code": 131026}])),
            expected=[DELIVERED],
        ),
        *(
            ReceiptCase(
                label=f"no echo: {echo!r}",
                body=batch(item(biz_opaque_callback_data=echo)),
                expected=[replace(DELIVERED, attempt_id=None)],
            )
            for echo in (None, "", 7, {"attempt": "0193-a1"}, "x" * 256)
        ),
        *(
            ReceiptCase(
                label=f"no time: {time!r}",
                body=batch(item(timestamp=time)),
                expected=[replace(DELIVERED, provider_time=None)],
            )
            for time in (None, 1750263773, "")
        ),
        ReceiptCase(
            label="a hundred, one spoiled",
            body=batch(*[item()] * 50, {"status": "read"}, *[item(status="sent")] * 49),
            expected=[
                *[DELIVERED] * 50,
                Malformed("id is missing or unusable", b""),
                *[replace(DELIVERED, word="sent", state=State.ACK)] * 49,
            ],
        ),
        ReceiptCase(
            label="several entries, changes and statuses, in their order",
            body=webhook(
                entry(change(value(item(id="a"), item(id="b"))), change(value(item(id="c")))),
                entry(change(value(item(id="d")))),
            ),
            expected=[replace(DELIVERED, reference=named) for named in "abcd"],
        ),
        *(
            ReceiptCase(
                label=f"nonsense: {spoiled!r}"[:60],
                body=batch(spoiled, item()),
                expected=[Malformed(why, b""), DELIVERED],
            )
            for spoiled, why in (
                (7, "not an object"),
                (None, "not an object"),
                ({}, "id is missing or unusable"),
                (without("status"), "status is missing or unusable"),
                (item(status=["read"]), "status is missing or unusable"),
            )
        ),
        *(
            ReceiptCase(
                label=f"a change of nonsense: {spoiled!r}"[:60],
                body=webhook(entry(spoiled, change(value(item())))),
                expected=[Malformed(why, b""), DELIVERED],
            )
            for spoiled, why in (
                (7, "a change of nothing"),
                ({}, "a change of nothing"),
                (change(value(item()), field=7), "a change of nothing"),
                (change(None), "no list of statuses"),
                (change([]), "no list of statuses"),
                (change({"statuses": None}), "no list of statuses"),
                (change({"statuses": {"id": "m_1"}}), "no list of statuses"),
            )
        ),
        *(
            ReceiptCase(
                label=f"an entry of nonsense: {spoiled!r}",
                body=webhook(spoiled, entry(change(value(item())))),
                expected=[Malformed("an entry without changes", b""), DELIVERED],
            )
            for spoiled in NO_ENTRY
        ),
        *(
            ReceiptCase(
                label=f"no webhook: {body!r}",
                body=body,
                expected=[Malformed("no webhook of WhatsApp", b"")],
            )
            for body in NO_WEBHOOK
        ),
        *(
            ReceiptCase(label=label, body=body, expected=[])
            for label, body in (
                ("what a person wrote", data("whatsapp/inbound.json")),
                ("what became of a template", data("whatsapp/template_event.json")),
                ("of another product", {"object": "page", "entry": [{"messaging": []}]}),
                ("no entries", webhook()),
                ("no changes", webhook(entry())),
                ("no statuses", batch()),
                (
                    "errors of the account",
                    webhook(entry(change({"metadata": {}, "errors": [{"code": 130429}]}))),
                ),
                (
                    "another number's, of somebody else",
                    webhook(entry(change(value(without("biz_opaque_callback_data"), number="9")))),
                ),
            )
        ),
        ReceiptCase(
            label="another number's, that echoes an attempt",
            body=webhook(entry(change(value(item(), number="9")))),
            expected=[DELIVERED],
        ),
        ReceiptCase(
            label="another number's, spoiled",
            body=webhook(entry(change(value(7, number="9")))),
            expected=[Malformed("not an object", b"")],
        ),
        *(
            ReceiptCase(
                label=f"no number named: {metadata!r}",
                body=webhook(entry(change({"metadata": metadata, "statuses": [item()]}))),
                expected=[DELIVERED],
            )
            for metadata in NO_METADATA
        ),
    ]

    def sign(self, callback: Callback, secret: str) -> Callback:
        headers = {**callback.headers, HEADER: signature(secret, callback.body)}
        return replace(callback, headers=headers)

    def receipt(self, word: str) -> bytes:
        return orjson.dumps(batch(item(status=word)))

    def refusal(self, message: str) -> bytes:
        return orjson.dumps(error(100, message, error_data={"details": message}))

    def may_accept(self, status: int, answer: object) -> bool:
        return status == 200 and isinstance(answer, dict) and "messages" in answer

    def signature_header(self) -> str:
        return HEADER


def whatsapp(*secrets: Secret, **changes: Any) -> Whatsapp:
    fields = {"name": "route", "account": "account", "callback_secret": secrets or (SECRET,)}
    return Whatsapp(Whatsapp.Settings(**{**fields, **TestWhatsapp.settings, **changes}))


def test_every_error_is_in_the_list_above() -> None:
    assert set(Whatsapp.errors) - set(range(201, 299)) == {code for code, _, _ in ERRORS}


# Signatures.


@pytest.mark.parametrize(
    ("secret", "body", "expected"),
    [
        # RFC 4231, test case 2.
        (
            "Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        # Of an SDK's documentation: hexdocs.pm/whatsapp_sdk, compute_signature.
        (
            "secret",
            b"test",
            "0329a06b62cd16b33eb6792be8c60b158d89a2ee3a876fce9a881ebb488c0914",
        ),
    ],
)
def test_a_signature_made_elsewhere(secret: str, body: bytes, expected: str) -> None:
    callback = replace(CALLBACK, body=body, headers={HEADER: f"sha256={expected}"})

    assert whatsapp(Secret(secret)).authenticate(callback)
    assert not whatsapp(Secret("Jeff")).authenticate(callback)


@pytest.mark.parametrize(
    "header", ["{v}", "sha1={v}", "sha256:{v}", "SHA256={v}", "sha256={v},sha256={v}", "sha256="]
)
def test_a_header_of_another_shape_is_refused(header: str) -> None:
    body = data("whatsapp/status.json")
    value = header.format(v=signature(SECRET, body).removeprefix("sha256="))

    assert not whatsapp().authenticate(replace(CALLBACK, body=body, headers={HEADER: value}))


def test_what_is_signed_are_the_bytes_as_they_came() -> None:
    """Escapes that Meta writes are not what a JSON library would write."""
    escaped = data("whatsapp/inbound.json")
    callback = replace(CALLBACK, body=escaped, headers={HEADER: signature(SECRET, escaped)})
    written_anew = replace(callback, body=orjson.dumps(orjson.loads(escaped)))

    assert b"\\u00e9" in escaped
    assert whatsapp().authenticate(callback)
    assert not whatsapp().authenticate(written_anew)


# The handshake.


def asked(**changes: str | None) -> Callback:
    query = {
        "hub.mode": "subscribe",
        "hub.verify_token": VERIFY,
        "hub.challenge": "1158201444",
        **{f"hub.{name}": given for name, given in changes.items()},
    }
    return replace(CALLBACK, method="GET", query={k: v for k, v in query.items() if v is not None})


def test_the_challenge_comes_back_plain() -> None:
    assert Reply(b"1158201444", "text/plain", 200) == whatsapp().handshake(asked())


def test_two_verify_tokens_hold_while_one_is_replaced() -> None:
    provider = whatsapp(verify_token=(Secret("old"), Secret("new")))

    assert all(provider.handshake(asked(verify_token=one)) for one in ("old", "new"))
    assert provider.handshake(asked(verify_token=VERIFY)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"verify_token": "wrong"},
        {"verify_token": ""},
        {"verify_token": None},
        {"verify_token": VERIFY[:-1]},
        {"verify_token": VERIFY + "x"},
        {"verify_token": VERIFY.upper()},
        {"verify_token": "é"},
        {"verify_token": "\udce9"},
        {"verify_token": SECRET},
        {"mode": "unsubscribe"},
        {"mode": None},
        {"challenge": None},
        {"challenge": ""},
        {"challenge": "1\n2"},
        {"challenge": "x" * 256},
    ],
)
def test_a_get_that_proves_nothing_is_refused(changes: Mapping[str, str | None]) -> None:
    """No reply, so that it is authenticated, which no GET is: with a signature or without."""
    provider = whatsapp()
    callback = asked(**changes)
    signed = replace(callback, headers={HEADER: signature(SECRET, b"")})

    assert provider.handshake(callback) is None
    assert not provider.authenticate(callback)
    assert not provider.authenticate(signed)


def test_without_a_verify_token_nobody_is_answered() -> None:
    provider = whatsapp(verify_token=())

    assert provider.handshake(asked()) is None
    assert provider.handshake(asked(verify_token="")) is None
    assert provider.handshake(asked(verify_token=None)) is None


def test_a_post_with_the_token_is_no_handshake() -> None:
    assert whatsapp().handshake(replace(asked(), method="POST")) is None


# Templates.


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("pt_BR", "pt_BR"),
        ("pt-br", "pt_BR"),
        ("PT-PT", "pt_PT"),
        ("pt-AO", "pt"),
        ("pt", "pt"),
        ("zh", "zh_TW"),
        ("zh-Hans-CN", "zh_TW"),
        ("p", None),
        ("ptx", None),
        ("", None),
        ("-", None),
    ],
)
def test_the_language_nearest_to_a_person(locale: str, expected: str | None) -> None:
    assert expected == nearest(["pt_PT", "pt", "pt_BR", "zh_TW", "zh_CN"], locale)


def test_templates_are_written_in_the_settings(tmp_path: Any) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        """
        [routes.whatsapp]
        provider = "whatsapp"
        channel = "whatsapp"
        phone_number_id = "106540352242922"
        token = { env = "TOKEN" }
        callback_secret = [{ env = "SECRET" }, { env = "OLD_SECRET" }]
        verify_token = { env = "VERIFY" }
        language = "en_US"
        templates.default = { en_US = "otp_code", fr = "otp_code" }
        templates.login = { en_US = "otp_login" }

        [workflows.default]
        steps = [{ channel = "whatsapp", routes = ["whatsapp"] }]
        """
    )
    environ = {
        "TOKEN": "the-token",
        "SECRET": SECRET,
        "OLD_SECRET": OTHER_SECRET,
        "VERIFY": VERIFY,
    }
    (provider,) = config.load(environ, file).providers

    assert isinstance(provider, Whatsapp)
    assert ("otp_code", "fr") == provider.template("verify", "fr-FR")
    assert ("otp_login", "en_US") == provider.template("login", "fr-FR")


# Settings.


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"channel": "sms"}, "channel: whatsapp has whatsapp, not sms"),
        ({"base_url": ""}, "base_url"),
        ({"timeout": -1}, "timeout"),
        ({"rate": -1}, "rate"),
        ({"concurrency": -1}, "concurrency"),
        ({"version": "25"}, "version"),
        ({"phone_number_id": "+1 555 078 3881"}, "phone_number_id"),
        ({"business_account_id": ""}, "business_account_id"),
        ({"token": Secret("")}, "token"),
        ({"callback_secret": Secret("one")}, "callback_secret"),
        ({"verify_token": Secret("one")}, "verify_token"),
        ({"verify_token": (Secret(""),)}, "verify_token"),
        ({"templates": {}}, "templates: a table `default`"),
        ({"templates": {"login": {"en_US": "otp"}}}, "templates: a table `default`"),
        ({"templates": {"default": {"fr": "otp"}}}, "templates: default has none in en_US"),
        ({"templates": {"default": {"en_US": "Otp"}}}, "templates: default.en_US"),
        ({"templates": {"default": {"en_US": "o", "fr-FR": "o"}}}, "templates: default.fr-FR"),
        ({"language": "fr"}, "templates: login has none in fr"),
        ({"template_ttl": 29}, "template_ttl"),
        ({"template_ttl": 901}, "template_ttl"),
        ({"remember_unreachable": 0.0}, "remember_unreachable"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}"):
        whatsapp(**changes)


def test_how_long_a_number_without_whatsapp_is_remembered() -> None:
    provider = whatsapp(remember_unreachable=60.0)
    answer = provider.parse(Response(400, content=data("whatsapp/undeliverable.json")))
    (receipt,) = provider.receipts(replace(CALLBACK, body=data("whatsapp/failed.json")))

    assert isinstance(answer, Refused)
    assert isinstance(receipt, Receipt)
    assert (60.0, 60.0) == (answer.avoid, receipt.avoid)


def test_each_status_keeps_its_own_bytes() -> None:
    callback = replace(CALLBACK, body=encoded(batch(item(), 7)))

    assert [orjson.dumps(item()), b"7"] == [found.raw for found in whatsapp().receipts(callback)]


# The look at the account.


def test_a_check_looks_at_our_number() -> None:
    request = whatsapp().build_check()

    assert ("GET", f"https://graph.facebook.com/v25.0/{NUMBER}?fields=id") == (
        request.method,
        str(request.url),
    )
    assert "Bearer the-token" == request.headers["authorization"]


def test_a_check_of_a_known_business_account_looks_at_its_templates() -> None:
    request = whatsapp(business_account_id="102290129340398").build_check()
    fields = "name,language,status,category,message_send_ttl_seconds"

    assert (
        "https://graph.facebook.com/v25.0/102290129340398/message_templates"
        f"?fields={fields}&limit=250"
    ) == str(request.url)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"id": NUMBER}, None),
        (200, {"id": "9"}, "Meta does not show the account (HTTP 200)."),
        (200, b"", "Meta does not show the account (HTTP 200)."),
        (401, b"", "Meta refuses the token."),
        (403, b"", "Meta refuses the token."),
        (400, error(190), "Meta refuses the token."),
        (400, error(0), "Meta refuses the token."),
        (400, error(100), "Meta does not show the account (100 No)."),
        (500, b"<html>", "Meta does not show the account (HTTP 500)."),
    ],
)
def test_a_check_of_the_number_says_this(status: int, body: object, expected: str | None) -> None:
    assert expected == whatsapp().parse_check(Response(status, content=encoded(body)))


MISSING = "Meta shows no approved authentication template otp_code in fr."


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"message_send_ttl_seconds": 600}, None),
        ({"status": "PAUSED"}, MISSING),
        ({"category": "UTILITY"}, MISSING),
        ({"language": "fr_FR"}, MISSING),
        ({"name": ["otp_code"]}, MISSING),
        (
            {"message_send_ttl_seconds": 120},
            "The template otp_code in fr has another time to live.",
        ),
    ],
)
def test_a_check_of_the_templates_says_this(
    changes: Mapping[str, object], expected: str | None
) -> None:
    provider = whatsapp(
        templates={"default": {"en_US": "otp_code", "fr": "otp_code"}, "login": TEMPLATES["login"]}
    )
    known = orjson.loads(data("whatsapp/templates.json"))
    known["data"][1] |= changes
    known["data"].append(7)

    assert expected == provider.parse_check(Response(200, content=orjson.dumps(known)))
