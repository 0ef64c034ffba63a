"""The mail server, spoken to by a real client (aiosmtplib) over a socket."""

import asyncio
import base64
import email
import email.policy
from collections.abc import AsyncIterator, Awaitable, Callable
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import pytest
from sandbox.conftest import MakeRig
from sandbox.world import Rig, client

from gateway.sandbox import Channel

ACCOUNT = {
    "username": "otp",
    "password": "the-password",
    "callback_url": "https://otp.example.com/otp/delivered/smtp/secret",
}
SENDER = "bounce+a1@otp.example.com"
MAIL = ["RET=HDRS", "ENVID=a1-tag"]
NOTIFY = "NOTIFY=SUCCESS,FAILURE,DELAY"

Connect = Callable[..., Awaitable[aiosmtplib.SMTP]]


@pytest.fixture
async def mail_rig(make_rig: MakeRig) -> Rig:
    return make_rig(accounts={"smtp": ACCOUNT})


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    made: list[aiosmtplib.SMTP] = []

    async def open_one(rig: Rig, **login: Any) -> aiosmtplib.SMTP:
        port = await rig.sandbox.serve_mail()
        login = {"username": "otp", "password": "the-password", **login}
        made.append(aiosmtplib.SMTP(hostname="127.0.0.1", port=port, timeout=5, **login))
        await made[-1].connect()
        return made[-1]

    yield open_one
    for smtp in made:
        smtp.close()


def letter() -> EmailMessage:
    made = EmailMessage()
    made["From"] = "ACME <otp@example.com>"
    made["To"] = "anna@example.com"
    made["Subject"] = "Your code"
    made.set_content("123456 is your code\n.\n..dots")
    made.add_alternative("<p>123456</p>", subtype="html")
    return made


async def send(smtp: aiosmtplib.SMTP, to: str, *rcpt_options: str) -> str:
    """The reply to the message."""
    options = list(rcpt_options) or [NOTIFY, f"ORCPT=rfc822;{to.replace('+', '+2B')}"]
    _, reply = await smtp.send_message(
        letter(), sender=SENDER, recipients=[to], mail_options=MAIL, rcpt_options=options
    )
    return reply


def reports(rig: Rig) -> list[tuple[str, str]]:
    """Action and Status of each notification, as the standard library reads them."""
    found = []
    for sent in rig.post.sent:
        parsed = email.message_from_bytes(sent.content)
        part = next(p for p in parsed.walk() if p.get_content_type() == "message/delivery-status")
        fields: Any = part.get_payload()
        found.append((fields[1]["Action"], fields[1]["Status"]))
    return found


async def test_a_message_reaches_the_phone(mail_rig: Rig, connect: Connect) -> None:
    reply = await send(await connect(mail_rig), "anna@example.com")
    message = mail_rig.only("anna@example.com")

    assert f"2.0.0 Ok: queued as {message.id}" == reply
    assert (Channel.EMAIL, "123456 is your code\n.\n..dots", "ACME <otp@example.com>") == (
        message.channel,
        message.text,
        message.sender,
    )
    assert "a1-tag" == message.client_ref


async def test_a_notification(mail_rig: Rig, connect: Connect) -> None:
    await send(await connect(mail_rig), "anna@example.com", NOTIFY, "ORCPT=rfc822;a+2Bb@x.org")
    await mail_rig.run()
    sent = mail_rig.post.sent[-1]
    parsed = email.message_from_bytes(sent.content, policy=email.policy.default)
    text, report, headers = parsed.iter_parts()
    of_message, of_recipient = report.iter_parts()

    assert (ACCOUNT["callback_url"], "message/rfc822") == (sent.url, sent.headers["Content-Type"])
    assert ("multipart/report", SENDER) == (parsed.get_content_type(), parsed["To"])
    assert "delivered" in text.get_content()
    assert "a1-tag" == of_message["Original-Envelope-Id"]
    assert {
        "Original-Recipient": "rfc822;a+2Bb@x.org",
        "Final-Recipient": "rfc822; anna@example.com",
        "Action": "delivered",
        "Status": "2.1.5",
        "Last-Attempt-Date": "Sun, 01 Mar 2026 12:00:02 +0000",
    } == dict(of_recipient.items())
    assert "Subject: Your code" in headers.get_content()


@pytest.mark.parametrize(
    ("digits", "told", "arrives"),
    [
        ("00", [("relayed", "2.0.0"), ("delivered", "2.1.5")], True),
        ("02", [], False),
        ("03", [("failed", "5.1.1")], False),
        ("05", [("relayed", "2.0.0")] * 3 + [("delivered", "2.1.5")] * 3, True),
        ("13", [("relayed", "2.0.0")], False),
        ("15", [("sandbox-unheard-of", "2.0.0"), ("delivered", "2.1.5")], True),
    ],
)
async def test_the_digits_decide(
    mail_rig: Rig, connect: Connect, digits: str, told: list[tuple[str, str]], arrives: bool
) -> None:
    await send(await connect(mail_rig), f"anna.{digits}@example.com")
    await mail_rig.run()

    assert told == reports(mail_rig)
    assert arrives == (mail_rig.only().arrived_at is not None)


async def test_who_did_not_ask_is_told_of_failures_only(mail_rig: Rig, connect: Connect) -> None:
    smtp = await connect(mail_rig)
    for to in ("anna@example.com", "anna03@example.com"):
        await send(smtp, to, "NOTIFY=FAILURE")
        await send(smtp, to, "NOTIFY=NEVER")
    await mail_rig.run()

    assert [("failed", "5.1.1")] == reports(mail_rig)
    assert [True, True] == [
        one.arrived_at is not None for one in mail_rig.sandbox.messages("anna@example.com")
    ]


@pytest.mark.parametrize(
    ("digits", "code", "kind"),
    [
        ("08", 450, aiosmtplib.SMTPRecipientsRefused),
        ("09", 451, aiosmtplib.SMTPDataError),
        ("12", 550, aiosmtplib.SMTPRecipientsRefused),
    ],
)
async def test_refusals(
    mail_rig: Rig, connect: Connect, digits: str, code: int, kind: type[Exception]
) -> None:
    smtp = await connect(mail_rig)
    with pytest.raises(kind) as raised:
        await send(smtp, f"anna{digits}@example.com")
    refused: Any = raised.value
    await mail_rig.run()

    assert code == getattr(refused, "recipients", [refused])[0].code
    assert not mail_rig.only().answer.accepts
    assert [] == mail_rig.post.sent


async def test_throttling_ends(mail_rig: Rig, connect: Connect) -> None:
    smtp = await connect(mail_rig)
    for _ in range(2):
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
            await send(smtp, "anna08@example.com")

    assert "queued" in await send(smtp, "anna08@example.com")


async def test_a_connection_that_breaks_after_the_message(mail_rig: Rig, connect: Connect) -> None:
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await send(await connect(mail_rig), "anna.11@example.com")
    await mail_rig.run()

    assert ("delivered", "2.1.5") == reports(mail_rig)[-1]


async def test_an_answer_that_is_held(mail_rig: Rig, connect: Connect) -> None:
    smtp = await connect(mail_rig)
    task = asyncio.create_task(send(smtp, "anna10@example.com"))
    while not mail_rig.sandbox.messages():  # noqa: ASYNC110 (over a socket, in its own time)
        await asyncio.sleep(0.01)
    waiting = not task.done()
    await mail_rig.clock.advance(30)

    assert waiting
    assert "queued" in await task


@pytest.mark.parametrize("login", [{"password": "x"}, {"username": "x"}])
async def test_a_wrong_login(mail_rig: Rig, connect: Connect, login: dict[str, str]) -> None:
    with pytest.raises(aiosmtplib.SMTPAuthenticationError, match="535"):
        await connect(mail_rig, **login)


async def test_without_an_account_nobody_gets_in(rig: Rig, connect: Connect) -> None:
    with pytest.raises(aiosmtplib.SMTPAuthenticationError):
        await connect(rig)
    with pytest.raises(aiosmtplib.SMTPAuthenticationError):
        await connect(rig, username="None", password="None")
    smtp = await connect(rig, username=None, password=None)
    with pytest.raises(aiosmtplib.SMTPSenderRefused, match="530"):
        await send(smtp, "anna@example.com")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["BOGUS"], 502),
        (["NOOP"], 250),
        (["AUTH PLAIN AAAA"], 503),
        (["RCPT TO:<a@example.com>"], 503),
        (["DATA"], 503),
        (["MAIL FROM:a@example.com"], 501),
        (["MAIL FROM:<>"], 501),
        (["MAIL FROM:<a@example.com> RET=NONE"], 501),
        (["MAIL FROM:<a@example.com> ENVID=" + "x" * 101], 501),
        (["MAIL FROM:<a@example.com> ENVID=a+"], 501),
        (["MAIL FROM:<a@example.com> BOGUS=1"], 555),
        (["MAIL FROM:<a@example.com>"], 250),
        (["MAIL FROM:<a@example.com>", "MAIL FROM:<a@example.com>"], 503),
        (["MAIL FROM:<a@example.com>", "RSET", "MAIL FROM:<a@example.com>"], 250),
        (["MAIL FROM:<a@example.com>", "DATA"], 503),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b>"], 501),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com> NOTIFY=NEVER,SUCCESS"], 501),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com> ORCPT=rfc822;a=b"], 501),
        (["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com> BOGUS=1"], 501),
        (["MAIL FROM:<a@example.com>", *["RCPT TO:<b@example.com>"] * 2], 452),
    ],
)
async def test_what_is_said(mail_rig: Rig, connect: Connect, lines: list[str], code: int) -> None:
    smtp = await connect(mail_rig)
    for line in lines:
        reply = await smtp.execute_command(line.encode())

    assert code == reply.code


@pytest.mark.parametrize(
    ("line", "code"), [("AUTH LOGIN", 504), ("AUTH PLAIN é!", 501), ("AUTH PLAIN", 334)]
)
async def test_logging_in(mail_rig: Rig, connect: Connect, line: str, code: int) -> None:
    smtp = await connect(mail_rig, username=None, password=None)
    await smtp.ehlo()
    reply = await smtp.execute_command(line.encode())

    assert code == reply.code
    if code == 334:
        given = base64.b64encode(b"\0otp\0the-password")
        assert 235 == (await smtp.execute_command(given)).code


async def test_lines_have_a_limit(mail_rig: Rig, connect: Connect) -> None:
    smtp = await connect(mail_rig)
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await smtp.execute_command(b"NOOP " + b"x" * 3000)


async def test_a_message_has_a_limit(mail_rig: Rig, connect: Connect) -> None:
    smtp = await connect(mail_rig)
    large = "\r\n".join(["x" * 70] * 5000)
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await smtp.sendmail(SENDER, "anna@example.com", large)

    assert [] == mail_rig.sandbox.messages()


async def test_a_notification_without_an_envelope_id(mail_rig: Rig, connect: Connect) -> None:
    smtp = await connect(mail_rig)
    await smtp.sendmail(SENDER, "anna03@example.com", "Subject: code\r\n\r\n123456")
    await mail_rig.run()

    assert b"Original-" not in mail_rig.post.sent[0].content
    assert "123456" == mail_rig.only().text


async def test_taking_leave(mail_rig: Rig, connect: Connect) -> None:
    smtp = await connect(mail_rig)

    assert (221, "2.0.0 Bye") == await smtp.quit()


async def test_closing_hangs_up(mail_rig: Rig, connect: Connect) -> None:
    smtp = await connect(mail_rig)
    await mail_rig.sandbox.aclose()
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await smtp.noop()


async def test_mail_has_its_page(mail_rig: Rig, connect: Connect) -> None:
    await send(await connect(mail_rig), "anna+codes@example.com")
    await mail_rig.run()
    async with client(mail_rig.sandbox) as reader:
        overview = await reader.get("/")
        phone = await reader.get("/phones/anna+codes@example.com")
        told = await reader.get("/messages", params={"number": "anna+codes@example.com"})

    assert 'href="/phones/anna+codes@example.com"' in overview.text
    assert "123456 is your code" in phone.text
    assert "E-mail" in phone.text
    assert 1 == len(told.json()["messages"])
