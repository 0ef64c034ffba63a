"""SMTP: messages, replies and notifications. Its wire is not HTTP, so that the runner's tests of
requests and answers are said anew here, in the words of that wire.
"""

import email
import email.policy
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from email.message import EmailMessage
from typing import Any, ClassVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from providers.cases import (
    CALLBACK,
    OUTGOING,
    SEARCH,
    SECRET,
    ProviderCases,
    ReceiptCase,
    ResponseCase,
    SendCase,
    data,
)

from gateway.domain.delivery import State
from gateway.ports import (
    Accepted,
    Callback,
    Mail,
    Malformed,
    Outcome,
    Receipt,
    RefusalKind,
    Refused,
    Secret,
    SmtpAnswer,
    SmtpReply,
    SmtpStage,
    Unknown,
)
from gateway.providers.smtp import Smtp, xtext

TAG_KEY = Secret("key-of-the-tags")
OLD_TAG_KEY = Secret("key-of-the-tags-before")
WEEK = 604_800.0
ATTEMPT = "0193-a1"
UUID7 = "019aa5d8-7a10-7abc-8def-0123456789ab"
MAIL = replace(
    OUTGOING, channel="email", recipient="anna+codes@example.com", sender="ACME", locale="fr_CA"
)
ACCOUNT, PERMANENT, TEMPORARY = RefusalKind.ACCOUNT, RefusalKind.PERMANENT, RefusalKind.TEMPORARY
CONNECT, HELLO, TLS, AUTH, SENDER, RCPT, DATA, MESSAGE = SmtpStage
BAD = "bad_destination"


def tag(attempt_id: str = ATTEMPT, key: str = TAG_KEY) -> str:
    """Computed here from the words of the description."""
    mac = hmac.new(key.encode(), attempt_id.encode(), hashlib.sha256).hexdigest()
    return f"{attempt_id}-{mac[:16]}"


def letter(name: str, attempt_tag: str | None = None) -> bytes:
    """A sample with its tag filled in, line ends as mail has them."""
    named = attempt_tag or tag()
    text = data(f"smtp/{name}.eml").decode().replace("{tag}", named)
    text = text.replace("{sender}", f"bounce+{named}@otp.example.com")
    return text.replace("\n", "\r\n").encode()


def report(*fields: str, head: str = "") -> bytes:
    """A notification in its shortest form, one group of fields per recipient."""
    groups = "\r\n\r\n".join((head or f"Original-Envelope-Id: {tag()}", *fields))
    return (
        'Content-Type: multipart/report; report-type=delivery-status; boundary="B"\r\n\r\n'
        f"--B\r\nContent-Type: message/delivery-status\r\n\r\n{groups}\r\n\r\n--B--\r\n"
    ).encode()


def answer(stage: SmtpStage, code: int, enhanced: str | None = None, text: str = "") -> SmtpAnswer:
    return SmtpAnswer(stage, SmtpReply(code, enhanced, text))


DELIVERED = Receipt(
    word="delivered (to mailbox)",
    state=State.DELIVERED,
    attempt_id=ATTEMPT,
    recipient="anna+codes@example.com",
    provider_time="Sat, 21 Nov 2026 10:00:03 +0000",
)
FAILED = Receipt(
    word="failed",
    state=State.FAILED,
    attempt_id=ATTEMPT,
    reason="bad_destination",
    permanent=True,
    recipient="anna@example.com",
    avoid=WEEK,
)


def failed(reason: str, *, permanent: bool, avoid: float | None = None) -> Receipt:
    return Receipt(
        word="failed",
        state=State.FAILED,
        attempt_id=ATTEMPT,
        reason=reason,
        permanent=permanent,
        avoid=avoid,
    )


REPLIES: Sequence[tuple[SmtpAnswer, Outcome]] = [
    (answer(MESSAGE, 250, "2.0.0", "Ok: queued as 4F2A61234"), Accepted("4F2A61234")),
    (answer(MESSAGE, 250, None, "OK id=1vMabc-0001-XY"), Accepted("1vMabc-0001-XY")),
    (answer(MESSAGE, 250, None, "Ok 0100018f-aa"), Accepted("0100018f-aa")),
    (answer(MESSAGE, 250, None, "OK"), Accepted(None)),
    (answer(MESSAGE, 250, None, "Ok, thanks"), Accepted(None)),
    (answer(MESSAGE, 251, None, "ok"), Unknown("odd_answer", "251: ok")),
    (answer(MESSAGE, 354, None, ""), Unknown("odd_answer", "354")),
    (answer(RCPT, 252, None, "?"), Refused("odd_answer", TEMPORARY, error="252: ?")),
    (
        answer(RCPT, 550, "5.1.1", "<anna@example.com>: User unknown"),
        Refused(BAD, PERMANENT, error="550: 5.1.1: <…>: User unknown", avoid=WEEK),
    ),
    (
        answer(MESSAGE, 550, "5.1.10", "null MX"),
        Refused(BAD, PERMANENT, error="550: 5.1.10: null MX", avoid=WEEK),
    ),
    (
        answer(RCPT, 550, "5.2.1", ""),
        Refused("mailbox_disabled", PERMANENT, error="550: 5.2.1", avoid=WEEK),
    ),
    (answer(RCPT, 552, "5.2.2", ""), Refused("mailbox_full", TEMPORARY, error="552: 5.2.2")),
    (answer(RCPT, 552, None, ""), Refused("mailbox_full", TEMPORARY, error="552")),
    (answer(RCPT, 452, "4.2.2", ""), Refused("mailbox_full", TEMPORARY, error="452: 4.2.2")),
    (answer(RCPT, 550, "5.7.1", ""), Refused("policy", PERMANENT, error="550: 5.7.1")),
    (answer(RCPT, 550, None, ""), Refused("rejected", PERMANENT, error="550")),
    (answer(RCPT, 553, None, ""), Refused("rejected", PERMANENT, error="553")),
    (answer(RCPT, 501, None, ""), Refused("rejected", PERMANENT, error="501")),
    (answer(RCPT, 550, "5.0.0", ""), Refused("rejected", PERMANENT, error="550: 5.0.0")),
    (answer(RCPT, 550, "4.2.0", ""), Refused("deferred", TEMPORARY, error="550: 4.2.0")),
    (answer(RCPT, 450, "4.7.1", "z"), Refused("policy", TEMPORARY, error="450: 4.7.1: z")),
    (answer(RCPT, 451, None, ""), Refused("deferred", TEMPORARY, error="451")),
    (answer(MESSAGE, 421, None, "bye"), Refused("deferred", TEMPORARY, error="421: bye")),
    (answer(MESSAGE, 554, "5.7.1", ""), Refused("policy", PERMANENT, error="554: 5.7.1")),
    (answer(MESSAGE, 554, None, ""), Refused("rejected", PERMANENT, error="554")),
    (answer(DATA, 554, None, ""), Refused("rejected", PERMANENT, error="554")),
    (answer(AUTH, 535, "5.7.8", ""), Refused("unauthorized", ACCOUNT, error="535: 5.7.8")),
    (answer(AUTH, 454, "4.7.0", ""), Refused("policy", TEMPORARY, error="454: 4.7.0")),
    (answer(AUTH, 500, None, ""), Refused("unauthorized", ACCOUNT, error="500")),
    (answer(RCPT, 530, "5.7.0", ""), Refused("unauthorized", ACCOUNT, error="530: 5.7.0")),
    (answer(SENDER, 534, None, ""), Refused("unauthorized", ACCOUNT, error="534")),
    (answer(SENDER, 538, None, ""), Refused("unauthorized", ACCOUNT, error="538")),
    (answer(SENDER, 553, "5.7.1", ""), Refused("bad_sender", ACCOUNT, error="553: 5.7.1")),
    (answer(SENDER, 451, None, ""), Refused("deferred", TEMPORARY, error="451")),
    (answer(CONNECT, 554, None, ""), Refused("connection_refused", ACCOUNT, error="554")),
    (answer(CONNECT, 421, None, ""), Refused("deferred", TEMPORARY, error="421")),
    (answer(HELLO, 550, None, ""), Refused("connection_refused", ACCOUNT, error="550")),
    (answer(TLS, 501, None, ""), Refused("tls_refused", ACCOUNT, error="501")),
]


class TestSmtp(ProviderCases):
    provider = "smtp"
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "email",
        "concurrency": 64,  # the runner looks for the default of the others
        "host": "mail.otp.example.com",
        "username": "otp",
        "password": Secret("the-password"),
        "from_address": "otp@example.com",
        "bounce_address": "bounce@otp.example.com",
        "tag_key": (TAG_KEY, OLD_TAG_KEY),
    }
    secrets_field = "callback_key"
    statuses = Smtp.statuses
    # A relay with DSN says ACK, a recipient's server may say DELIVERED; promised on request.
    unpromised: ClassVar[frozenset[State]] = frozenset({State.ACK, State.DELIVERED})
    speaks_json = False
    unusable: ClassVar[Sequence[object]] = ("", tag("0193-a2", "another key"), "0193-a1", "x" * 300)

    sends: ClassVar[Sequence[SendCase]] = ()
    responses: ClassVar[Sequence[ResponseCase]] = ()
    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label="delivered", body=letter("delivered"), expected=[DELIVERED]),
        ReceiptCase(label="failed", body=letter("failed"), expected=[FAILED]),
        ReceiptCase(
            label="the older key holds",
            body=letter("failed", tag(key=OLD_TAG_KEY)),
            expected=[FAILED],
        ),
        ReceiptCase(
            label="read",
            body=letter("displayed"),
            expected=[
                Receipt(
                    word="manual-action/MDN-sent-manually; displayed",
                    state=State.READ,
                    attempt_id=ATTEMPT,
                )
            ],
        ),
        ReceiptCase(
            label="shown by a program, not a person",
            body=letter("displayed").replace(b"manual-action", b"automatic-action"),
            expected=[
                Receipt(
                    word="automatic-action/MDN-sent-manually; displayed",
                    state=None,
                    attempt_id=ATTEMPT,
                )
            ],
        ),
        ReceiptCase(
            label="a disposition without one",
            body=letter("displayed").replace(b"Disposition: ", b"Dispo: "),
            expected=[Malformed("Disposition is missing or unusable", b"")],
        ),
        ReceiptCase(label="out of office", body=letter("out_of_office"), expected=[]),
        ReceiptCase(
            label="Exim without a report",
            body=letter("exim"),
            expected=[failed("not_delivered", permanent=False)],
        ),
        ReceiptCase(
            label="a group without Action, its neighbour well",
            body=report("Final-Recipient: rfc822; a@example.com", "Action: relayed"),
            expected=[
                Malformed("Action is missing or unusable", b""),
                Receipt(word="relayed", state=State.ACK, attempt_id=ATTEMPT),
            ],
        ),
        ReceiptCase(
            label="comments and capitals",
            body=report("Action: Relayed (to non-DSN-aware mailer)\r\nStatus: 2.7.1"),
            expected=[
                Receipt(
                    word="Relayed (to non-DSN-aware mailer)", state=State.ACK, attempt_id=ATTEMPT
                )
            ],
        ),
        ReceiptCase(label="no recipient", body=report(), expected=[]),
        ReceiptCase(
            label="too many recipients",
            body=report(*["Action: delayed"] * 30),
            expected=[Receipt(word="delayed", state=None, attempt_id=ATTEMPT)] * 20,
        ),
        *(
            ReceiptCase(
                label=f"failed: {status}",
                body=report(f"Action: failed\r\nStatus: {status}"),
                expected=[failed(reason, permanent=permanent, avoid=avoid)],
            )
            for status, reason, permanent, avoid in (
                ("5.1.1", "bad_destination", True, WEEK),
                ("5.1.1 (no such user)", "bad_destination", True, WEEK),
                ("5.1.2", "bad_destination", True, WEEK),
                ("5.1.3", "bad_destination", True, WEEK),
                ("5.1.6", "bad_destination", True, WEEK),
                ("5.1.10", "bad_destination", True, WEEK),
                ("4.1.1", "bad_destination", False, None),
                ("5.2.1", "mailbox_disabled", True, WEEK),
                ("5.2.2", "mailbox_full", False, None),
                ("4.2.2", "mailbox_full", False, None),
                ("4.4.7", "expired", False, None),
                ("5.4.7", "expired", False, None),
                ("5.7.1", "policy", True, None),
                ("4.7.0", "policy", False, None),
                ("4.4.1", "not_delivered", False, None),
                ("5.0.0", "not_delivered", True, None),
                ("550", "not_delivered", False, None),
                ("", "not_delivered", False, None),
            )
        ),
        *(
            ReceiptCase(label=label, body=body, expected=[Malformed(why, b"")])
            for label, body, why in (
                ("nothing", b"", "no tag of ours"),
                ("another's tag", letter("failed", tag(key="not ours")), "no tag of ours"),
                ("an id without its MAC", letter("failed", ATTEMPT), "no tag of ours"),
                ("large", b"x" * 70_000, "too large or too deep for a notification"),
                (
                    "deep",
                    b"Content-Type: message/rfc822\r\n\r\n" * 900,
                    "too large or too deep for a notification",
                ),
            )
        ),
        *(
            ReceiptCase(
                label=f"only {header} has the tag",
                body=report("Action: delivered", head="Reporting-MTA: dns; mx").replace(
                    b"Content-Type: multipart", f"{header}\r\nContent-Type: multipart".encode(), 1
                ),
                expected=[Receipt(word="delivered", state=State.DELIVERED, attempt_id=ATTEMPT)],
            )
            for header in (
                f"To: Bounces <bounce+{tag()}@otp.example.com>",
                f"To: BOUNCE+{tag().upper()}@OTP.EXAMPLE.COM",
                f"Delivered-To: bounce+{tag()}@otp.example.com",
                f"X-Original-To: bounce+{tag()}@otp.example.com",
                f"Envelope-To: bounce+{tag()}@otp.example.com",
            )
        ),
        *(
            ReceiptCase(
                label=f"only the returned {part} has the tag",
                body=report("Action: delivered", head="Reporting-MTA: dns; mx").replace(
                    b"--B--",
                    f"--B\r\nContent-Type: {part}\r\n\r\n"
                    f"Message-ID:\r\n <{tag()}@otp.example.com>\r\n\r\n--B--".encode(),
                ),
                expected=[Receipt(word="delivered", state=State.DELIVERED, attempt_id=ATTEMPT)],
            )
            for part in ("text/rfc822-headers", "message/rfc822")
        ),
    ]

    def sign(self, callback: Callback, secret: str) -> Callback:
        return replace(callback, key=secret)

    def receipt(self, word: str) -> bytes:
        return report(f"Action: {word}")

    def refer(self, body: bytes, reference: object) -> bytes:
        return body.replace(tag().encode(), str(reference).encode())

    def delivered(self) -> str:
        return "delivered"

    # What the runner does with HTTP's values, done with SMTP's.

    def test_a_message_becomes_this_request(self) -> None:  # type: ignore[override]
        mail = smtp().build(MAIL)

        assert f"bounce+{tag()}@otp.example.com" == mail.sender
        assert "anna+codes@example.com" == mail.recipient
        assert ("RET=HDRS", f"ENVID={tag()}") == mail.mail_options
        assert (
            "NOTIFY=SUCCESS,FAILURE,DELAY",
            "ORCPT=rfc822;anna+2Bcodes@example.com",
        ) == mail.rcpt_options

    @pytest.mark.parametrize(("said", "outcome"), REPLIES, ids=repr)
    def test_an_answer_means_this(  # type: ignore[override]
        self, said: SmtpAnswer, outcome: Outcome
    ) -> None:
        assert outcome == smtp().parse(said)

    def test_a_reference_is_opaque(self) -> None:
        for attempt_id in ("007", "a", "0" * 60, UUID7):
            callback = self.sign(replace(CALLBACK, body=letter("failed", tag(attempt_id))), SECRET)
            (found,) = self.make(SECRET).receipts(callback)

            assert isinstance(found, Receipt), attempt_id
            assert (attempt_id, None) == (found.attempt_id, found.reference)

    def test_secrets_codes_and_numbers_are_not_shown(self) -> None:
        settings = self.configure(SECRET)
        provider = Smtp(settings)
        hidden = [SECRET, TAG_KEY, OLD_TAG_KEY, settings.password]
        private = [MAIL.recipient, "anna", MAIL.code, "+33600000000"]
        said = " / ".join([*hidden, f"<{MAIL.recipient}>:", *private[2:]])
        outcomes = [
            provider.parse(answer(stage, code, None, said))
            for stage in SmtpStage
            for code in range(200, 600)
        ]
        shown = [repr(settings), repr(provider), *map(repr, outcomes), repr(provider.build(MAIL))]
        shown.append(repr(answer(RCPT, 550, "5.1.1", said)))
        shown.append(repr(provider.server))

        assert [] == [text for text in shown for fact in (*hidden, *private) if fact in text]

    def test_no_other_status_means_accepted(self) -> None:
        provider = self.make(SECRET)
        accepting = [
            (stage, code)
            for stage in SmtpStage
            for code in range(-1, 700)
            if isinstance(provider.parse(cast("Any", answer(stage, code))), Accepted)
        ]

        assert [(MESSAGE, 250)] == accepting

    def test_no_answer_makes_it_stumble(self) -> None:
        provider = smtp()
        texts = st.text() | st.sampled_from(["queued as ", "Ok id=", "\ud800"])

        @SEARCH
        @given(
            stage=st.sampled_from(SmtpStage),
            code=st.integers(-1, 999),
            enhanced=st.none() | st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True),
            text=texts,
        )
        def search(stage: SmtpStage, code: int, enhanced: str | None, text: str) -> None:
            outcome = provider.parse(answer(stage, code, enhanced, text))

            assert (stage, code) == (MESSAGE, 250) or not isinstance(outcome, Accepted)
            assert stage is MESSAGE or isinstance(outcome, Refused)

        search()


def smtp(**changes: Any) -> Smtp:
    fields = {"name": "route", "account": "account", "callback_key": (SECRET,)}
    return Smtp(Smtp.Settings(**{**fields, **TestSmtp.settings, **changes}))


def read(mail: Mail) -> EmailMessage:
    return email.message_from_bytes(mail.content, policy=email.policy.default)


def test_a_message_has_these_headers() -> None:
    message = read(smtp().build(replace(MAIL, attempt_id=UUID7, subject="Ihr Bestätigungscode")))

    assert {
        "From": "ACME <otp@example.com>",
        "To": "anna+codes@example.com",
        "Subject": "Ihr Bestätigungscode",
        "Date": "Fri, 21 Nov 2025 09:56:59 +0000",
        "Message-ID": f"<{tag(UUID7)}@otp.example.com>",
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "MIME-Version": "1.0",
        "Content-Type": f'multipart/alternative; boundary="=_{tag(UUID7)}"',
    } == dict(message.items())


def test_a_message_is_text_and_the_same_as_html() -> None:
    outgoing = replace(MAIL, text='Votre code é <123456> & "rien d\'autre".\n.\n')
    text, html = read(smtp().build(outgoing)).iter_parts()
    page = html.get_content()

    assert outgoing.text.splitlines() == text.get_content().splitlines()
    assert "Votre code é &lt;123456&gt; &amp; &quot;rien d&#x27;autre&quot;." in page
    assert '<html lang="fr-CA">' in page
    assert "user-select:all" in page
    assert ">123456</p>" in page
    assert "http" not in page


def test_a_message_is_seven_bits_in_lines_of_mail_length() -> None:
    content = smtp().build(replace(MAIL, text="é" * 2000, subject="é" * 2000)).content

    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 200
    assert b"\n" not in content.replace(b"\r\n", b"")


def test_one_attempt_is_one_message_to_the_byte() -> None:
    assert smtp().build(MAIL) == smtp().build(MAIL)


@pytest.mark.parametrize(
    ("subject", "sender", "line"),
    [
        ("", "ACME", "Your ACME code"),
        ("", None, "Your code"),
        ("Code", None, "Code"),
        ("Code\r\nBcc: eve@example.com", None, "Code Bcc: eve@example.com"),
        ("a\x00b\u2028c\x7f", None, "a b c"),
        ("x" * 200, None, "x" * 150),
    ],
)
def test_a_subject_is_one_line(subject: str, sender: str | None, line: str) -> None:
    message = read(smtp().build(replace(MAIL, subject=subject, sender=sender)))

    assert line == message["Subject"]
    assert message["Bcc"] is None


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "+33600000000",
        "anna",
        "anna@",
        "@example.com",
        "anna@example.com\r\nRCPT TO:<eve@example.com>",
        "anna@example.com>",
        "anna@example.com, eve@example.com",
        "anna @example.com",
        "änna@example.com",
        "anna@exämple.com",
        "anna@-example.com",
        "anna@example..com",
        "anna@example.com\n",
        "x" * 65 + "@example.com",
        "anna@" + "x" * 254,
    ],
)
def test_what_is_no_address_is_not_written_to(recipient: str) -> None:
    with pytest.raises(ValueError, match="plain e-mail address"):
        smtp().build(replace(MAIL, recipient=recipient))


def test_a_sender_cannot_add_a_header() -> None:
    with pytest.raises(ValueError, match="invalid arguments; address parts cannot contain CR"):
        smtp().build(replace(MAIL, sender="ACME\r\nBcc: eve@example.com"))


def test_an_attempt_id_that_cannot_stand_in_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="attempt id"):
        smtp().build(replace(MAIL, attempt_id="a b"))


def test_a_read_receipt_is_asked_for_on_request_only() -> None:
    name = "Disposition-Notification-To"

    assert read(smtp().build(MAIL))[name] is None
    assert f"bounce+{tag()}@otp.example.com" == read(smtp(read_receipts=True).build(MAIL))[name]


def test_an_address_in_xtext() -> None:
    """RFC 3461, 4."""
    assert "a+2Bb+3Dc+20d+E9@example.com" == xtext("a+b=c dé@example.com")


@pytest.mark.parametrize(
    ("changes", "promised"),
    [
        ({}, {State.FAILED}),
        ({"delivery_reports": True}, {State.FAILED, State.ACK, State.DELIVERED}),
        ({"callback_key": ()}, set()),
        ({"callback_key": (), "delivery_reports": True}, set()),
    ],
)
def test_it_promises_what_the_operator_knows(
    changes: Mapping[str, Any], promised: set[State]
) -> None:
    assert promised == smtp(**changes).confirms


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "sms"}, "channel: smtp has email, not sms"),
        ({"host": ""}, "host"),
        ({"host": "mail example"}, "host"),
        ({"port": 0}, "port"),
        ({"security": "maybe"}, "security: starttls, tls, none"),
        ({"security": "none"}, "security: none is for the loopback only"),
        ({"username": None}, "username"),
        ({"password": Secret("")}, "username"),
        ({"password": Secret("a\r\nb")}, "username"),
        ({"concurrency": 0}, "concurrency"),
        ({"from_address": "ACME <otp@example.com>"}, "from_address"),
        ({"bounce_address": "bounce"}, "bounce_address"),
        ({"bounce_address": "bounces-of-otp@example.com"}, "bounce_address"),
        ({"bounce_address": "Bounce@example.com"}, "bounce_address"),
        ({"bounce_address": "b+c@example.com"}, "bounce_address"),
        ({"tag_key": ()}, "tag_key"),
        ({"tag_key": (Secret(""),)}, "tag_key"),
        ({"tag_key": Secret("one")}, "tag_key"),
        ({"callback_key": Secret("one")}, "callback_key"),
        ({"avoid": -1.0}, "avoid"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        smtp(**changes)


def test_it_opens_as_many_connections_as_it_has_calls() -> None:
    few = {"concurrency": Smtp.Settings.__dataclass_fields__["concurrency"].default}

    assert [64, 8] == [one.server.connections for one in (smtp(), smtp(**few))]


def test_no_encryption_is_for_the_loopback() -> None:
    server = smtp(host="127.0.0.1", security="none", username=None, password=Secret("")).server

    assert ("127.0.0.1", "none", "otp.example.com") == (server.host, server.security, server.hello)


def test_what_breaks_the_parser_is_kept_aside() -> None:
    """A boundary in a character set whose name no codec can have."""
    body = b"Content-Type: multipart/mixed; boundary*=\x00''abc\r\n\r\n--abc\r\n\r\n"
    (found,) = smtp().receipts(replace(CALLBACK, body=body, key=SECRET))

    assert isinstance(found, Malformed)
    assert body == found.raw


def test_a_statement_keeps_its_own_fields() -> None:
    callback = replace(CALLBACK, body=letter("failed"), key=SECRET)
    (found,) = smtp().receipts(callback)

    assert b"Status: 5.1.1" in found.raw
    assert b"Subject" not in found.raw


def test_the_local_part_of_a_bounce_address_stays_within_its_limit() -> None:
    mail = smtp(bounce_address="b" * 10 + "@example.com").build(replace(MAIL, attempt_id=UUID7))

    assert len(mail.sender.partition("@")[0]) <= 64
