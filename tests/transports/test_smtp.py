"""The SMTP transport, against a real server (aiosmtpd) and one that misbehaves to the letter.

What matters most: whatever breaks before the message is written is NotSent, whatever breaks
after is Lost, and nothing is submitted twice.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from aiosmtplib import SMTPServerDisconnected
from aiosmtplib.response import SMTPResponse
from transports.faults import certificate, tls_server

from gateway.ports import (
    Lost,
    Mail,
    NotSent,
    Secret,
    SmtpAnswer,
    SmtpReply,
    SmtpServer,
    SmtpStage,
    TransportError,
)
from gateway.transports.smtp import SmtpTransport
from gateway.transports.smtp import _commands as commands
from gateway.transports.smtp import _Journey as Journey

MAIL = Mail(
    sender="bounce+a1@otp.example.com",
    recipient="anna@example.com",
    content=b"Subject: code\r\n\r\n123456\r\n.\r\n..dots\r\nend",
    mail_options=("RET=HDRS", "ENVID=a1"),
    rcpt_options=("NOTIFY=SUCCESS,FAILURE,DELAY", "ORCPT=rfc822;anna@example.com"),
)
CONNECT, HELLO, TLS, AUTH, FROM, RCPT, DATA, MESSAGE = SmtpStage


def server(port: int, **changes: Any) -> SmtpServer:
    made = SmtpServer(
        host="127.0.0.1",
        port=port,
        security="none",
        username=None,
        password=Secret(""),
        ca_file=None,
        hello="otp.example.com",
        connections=2,
    )
    return replace(made, **changes)


# --- A real server ------------------------------------------------------------------------------


@dataclass
class Mailbox:
    """aiosmtpd's handler: takes mail, or answers as told."""

    answers: dict[str, str] = field(default_factory=dict)  # MAIL, RCPT or DATA → the reply
    taken: list[Envelope] = field(default_factory=list)
    sessions: set[int] = field(default_factory=set)
    slow: float = 0.0

    async def handle_MAIL(  # noqa: N802 (aiosmtpd's name)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.sessions.add(id(session.peer and server))
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        await asyncio.sleep(self.slow)
        return self.answers.get("MAIL", "250 OK")

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if "RCPT" in self.answers:
            return self.answers["RCPT"]
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if "DATA" in self.answers:
            return self.answers["DATA"]
        self.taken.append(envelope)
        return f"250 2.0.0 Ok: queued as 4F2A6123{len(self.taken)}"


def authenticated(*given: Any) -> AuthResult:
    data = given[-1]
    right = (data.login, data.password) == (b"otp", b"the-password")
    return AuthResult(success=right, handled=False)


@asynccontextmanager
async def serving(mailbox: Mailbox, *, tls: ssl.SSLContext | None = None, **options: Any) -> Any:
    """The port it listens on."""
    loop = asyncio.get_running_loop()
    made = {"enable_SMTPUTF8": False, "ident": "test", "loop": loop, **options}
    listening = await loop.create_server(lambda: SMTP(mailbox, **made), "127.0.0.1", 0, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


@pytest.fixture
async def transports() -> AsyncIterator[Callable[..., SmtpTransport]]:
    made: list[SmtpTransport] = []

    def make(
        port: int, *, keepalive: float = 30.0, probe: float = 2.0, trust: Any = None, **changes: Any
    ) -> SmtpTransport:
        where = server(port, **changes)
        made.append(SmtpTransport(where, keepalive=keepalive, probe=probe, ssl_context=trust))
        return made[-1]

    yield make
    for transport in made:
        await transport.aclose()


Make = Callable[..., SmtpTransport]


async def test_mail_is_taken(transports: Make) -> None:
    mailbox = Mailbox()
    async with serving(mailbox) as port:
        answer = await transports(port).send(MAIL, within=5)
        (envelope,) = mailbox.taken

    assert (
        SmtpAnswer(
            MESSAGE,
            SmtpReply(250, "2.0.0", "Ok: queued as 4F2A61231"),
            (SmtpReply(250, "2.1.5", "OK"),),
        )
        == answer
    )
    assert (MAIL.sender, [MAIL.recipient]) == (envelope.mail_from, envelope.rcpt_tos)
    assert MAIL.content + b"\r\n" == envelope.content


async def test_no_line_of_a_message_ends_it(transports: Make) -> None:
    mailbox = Mailbox()
    mail = replace(MAIL, content=b"a\n.\nb\r.\rMAIL FROM:<eve@example.com>\n\n.\r\n")
    async with serving(mailbox) as port:
        await transports(port).send(mail, within=5)
        (envelope,) = mailbox.taken

    assert b"a\r\n.\r\nb\r\n.\r\nMAIL FROM:<eve@example.com>\r\n\r\n.\r\n" == envelope.content


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mail_goes_encrypted_and_logged_in(
    transports: Make, tmp_path: Path, security: str
) -> None:
    certified = certificate(tmp_path)
    there, here = tls_server(certified), ssl.create_default_context(cafile=certified)
    mailbox = Mailbox()
    options: dict[str, Any] = {"authenticator": authenticated}
    if security == "starttls":
        options |= {"tls_context": there, "require_starttls": True, "auth_required": True}
    else:
        options |= {"auth_require_tls": False}  # it does not know that it stands behind TLS
    async with serving(mailbox, tls=there if security == "tls" else None, **options) as port:
        right = {"username": "otp", "password": Secret("the-password"), "security": security}
        answer = await transports(port, trust=here, **right).send(MAIL, within=5)
        wrong = right | {"password": Secret("other")}
        refused = await transports(port, trust=here, **wrong).send(MAIL, within=5)
        with pytest.raises(NotSent, match="tls_error"):
            await transports(port, **right).send(MAIL, within=5)

    assert (MESSAGE, 250) == (answer.stage, answer.reply.code)
    assert (AUTH, SmtpReply(535, "5.7.8", "Authentication credentials invalid")) == (
        refused.stage,
        refused.reply,
    )
    assert 1 == len(mailbox.taken)


async def test_a_certificate_can_be_trusted_by_its_file(transports: Make, tmp_path: Path) -> None:
    certified = certificate(tmp_path)
    async with serving(Mailbox(), tls_context=tls_server(certified)) as port:
        mail = transports(port, security="starttls", ca_file=str(certified))
        answer = await mail.send(MAIL, within=5)

    assert 250 == answer.reply.code


async def test_without_starttls_nothing_is_said_in_the_clear(transports: Make) -> None:
    mailbox = Mailbox()
    secret = {"username": "otp", "password": Secret("the-password")}
    async with serving(mailbox) as port:
        with pytest.raises(NotSent, match="starttls_not_offered"):
            await transports(port, security="starttls", **secret).send(MAIL, within=5)

    assert ([], set()) == (mailbox.taken, mailbox.sessions)


async def test_a_login_that_is_not_offered(transports: Make) -> None:
    async with serving(Mailbox()) as port:
        with pytest.raises(NotSent, match="auth_not_offered"):
            await transports(port, username="otp", password=Secret("x")).send(MAIL, within=5)


@pytest.mark.parametrize(
    ("word", "reply", "stage", "expected"),
    [
        ("MAIL", "550 5.7.1 not you", FROM, SmtpReply(550, "5.7.1", "not you")),
        ("RCPT", "550 5.1.1 nobody", RCPT, SmtpReply(550, "5.1.1", "nobody")),
        ("RCPT", "450 later", RCPT, SmtpReply(450, None, "later")),
        ("RCPT", "252 perhaps", RCPT, SmtpReply(252, None, "perhaps")),
        ("DATA", "554 5.7.1 spam", MESSAGE, SmtpReply(554, "5.7.1", "spam")),
        ("DATA", "451 4.3.0", MESSAGE, SmtpReply(451, "4.3.0", "")),
    ],
)
async def test_a_refusal_is_an_answer_and_the_next_message_goes_through(
    transports: Make, word: str, reply: str, stage: SmtpStage, expected: SmtpReply
) -> None:
    mailbox = Mailbox({word: reply})
    async with serving(mailbox) as port:
        transport = transports(port)
        refused = await transport.send(MAIL, within=5)
        mailbox.answers.clear()
        taken = await transport.send(MAIL, within=5)

    assert (stage, expected) == (refused.stage, refused.reply)
    assert (MESSAGE, 250) == (taken.stage, taken.reply.code)
    assert 1 == len(mailbox.taken)


async def test_many_messages_share_few_connections(transports: Make) -> None:
    mailbox = Mailbox()
    async with serving(mailbox) as port:
        transport = transports(port)
        answers = await asyncio.gather(*(transport.send(MAIL, within=10) for _ in range(20)))

    assert [250] * 20 == [answer.reply.code for answer in answers]
    assert 20 == len(mailbox.taken)
    assert len(mailbox.sessions) <= 2


async def test_a_slow_server_gets_no_more_time_than_there_is(transports: Make) -> None:
    mailbox = Mailbox(slow=30)
    async with serving(mailbox) as port:
        with pytest.raises(NotSent, match=r"^timeout: TimeoutError 127\.0\.0\.1:"):
            await transports(port).send(MAIL, within=0.1)

    assert [] == mailbox.taken


# --- A server that misbehaves -------------------------------------------------------------------


Line = Callable[["Talk"], Awaitable[None]]


@dataclass
class Talk:
    """One connection, as a script sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    log: list[str]
    quiet: asyncio.Event

    async def say(self, line: str) -> None:
        self.writer.write(line.encode() + b"\r\n")
        await self.writer.drain()

    async def hear(self, *replies: str) -> None:
        """A command for each reply."""
        for reply in replies:
            self.log.append((await self.reader.readuntil(b"\r\n")).decode().strip())
            await self.say(reply)

    async def message(self) -> None:
        self.log.append((await self.reader.readuntil(b"\r\n.\r\n")).decode())

    async def silence(self) -> None:
        self.quiet.set()
        await self.reader.read()

    async def greet(self, *extensions: str) -> None:
        await self.say("220 hello")
        await self.hear(
            "\r\n".join(["250-test", *(f"250-{one}" for one in extensions), "250 SIZE"])
        )

    async def take(self) -> None:
        """One message, well."""
        await self.hear("250 ok", "250 ok", "354 go on")
        await self.message()
        await self.say("250 ok")


@dataclass
class Faulty:
    port: int
    log: list[str]
    quiet: asyncio.Event  # a script has fallen silent
    connections: int = 0


@asynccontextmanager
async def faulty(*scripts: Line) -> AsyncIterator[Faulty]:
    """Each connection runs the next script, the last one ever after; then it is closed."""
    seen = Faulty(0, [], asyncio.Event())
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = scripts[min(seen.connections, len(scripts) - 1)]
        seen.connections += 1
        try:
            await script(Talk(reader, writer, seen.log, seen.quiet))
        except (asyncio.IncompleteReadError, ConnectionError):
            seen.log.append("gone")
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(run(reader, writer))
        tasks.add(task)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    seen.port = listening.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def failure(transport: SmtpTransport, within: float = 5) -> TransportError:
    with pytest.raises(TransportError) as raised:
        await transport.send(MAIL, within=within)
    return raised.value


def script(*lines: str, greet: bool = True, message: bool = False, silent: bool = False) -> Line:
    """Greets, answers the first commands with these lines, and closes or falls silent."""

    async def talk(talk: Talk) -> None:
        if greet:
            await talk.greet()
        await talk.hear(*lines)
        if message:
            await talk.message()
        if silent:
            await talk.silence()

    return talk


SHORT = 0.5  # seconds; long enough for every step on a busy machine, and all of it is waited for
OK, GO = "250 ok", "354 go on"


@pytest.mark.parametrize(
    ("label", "fault", "kind", "reason"),
    [
        ("closes at once", script(greet=False), NotSent, "connect_error"),
        ("says nothing", script(greet=False, silent=True), NotSent, "timeout"),
        ("closes after the greeting", script(), NotSent, "disconnected"),
        ("closes after MAIL", script(OK), NotSent, "disconnected"),
        ("closes after RCPT", script(OK, OK), NotSent, "disconnected"),
        ("is silent after RCPT", script(OK, OK, silent=True), NotSent, "timeout"),
        ("talks nonsense", script(OK, "what?"), NotSent, "protocol_error"),
        ("talks without end", script(OK, "250-" + "x" * 40_000), NotSent, "protocol_error"),
        ("closes after 354", script(OK, OK, GO), Lost, "disconnected"),
        ("closes after the message", script(OK, OK, GO, message=True), Lost, "disconnected"),
        (
            "is silent after the message",
            script(OK, OK, GO, message=True, silent=True),
            Lost,
            "timeout",
        ),
    ],
)
async def test_the_line_runs_where_the_message_begins(
    transports: Make, label: str, fault: Line, kind: type[TransportError], reason: str
) -> None:
    async with faulty(fault) as seen:
        error = await failure(transports(seen.port), SHORT if reason == "timeout" else 5)

    assert (kind, reason) == (type(error), error.reason), label
    assert 1 == seen.connections
    assert error.__cause__ is None
    assert "anna" not in str(error)


async def test_nonsense_after_the_message_is_lost(transports: Make) -> None:
    async def talk(talk: Talk) -> None:
        await talk.greet()
        await talk.hear(OK, OK, GO)
        await talk.message()
        await talk.say("what?")

    async with faulty(talk) as seen:
        error = await failure(transports(seen.port))

    assert (Lost, "protocol_error") == (type(error), error.reason)


async def test_nobody_listens(transports: Make) -> None:
    async with faulty(script()) as seen:
        pass
    error = await failure(transports(seen.port))

    assert (NotSent, "connect_error") == (type(error), error.reason)


@pytest.mark.parametrize(
    ("label", "fault", "stage", "code"),
    [
        ("at the greeting", "554 go away", CONNECT, 554),
        ("at MAIL", script("421 4.3.2 closing"), FROM, 421),
        ("at RCPT", script(OK, "421 4.3.2 closing"), RCPT, 421),
        ("at DATA", script(OK, OK, "421 4.3.2 closing"), DATA, 421),
    ],
)
async def test_a_server_that_gives_up_is_heard_and_left(
    transports: Make, label: str, fault: Line | str, stage: SmtpStage, code: int
) -> None:
    async def refuses(talk: Talk) -> None:
        await talk.say(str(fault))
        await talk.silence()

    async with faulty(refuses if isinstance(fault, str) else fault) as seen:
        answer = await transports(seen.port).send(MAIL, within=5)

    assert (stage, code) == (answer.stage, answer.reply.code), label
    assert 1 == seen.connections


async def test_options_are_said_to_a_server_that_offers_them(transports: Make) -> None:
    async def talk(talk: Talk) -> None:
        await talk.greet("DSN")
        await talk.take()

    async with faulty(talk) as seen:
        await transports(seen.port).send(MAIL, within=5)

    assert [
        "EHLO otp.example.com",
        "MAIL FROM:<bounce+a1@otp.example.com> RET=HDRS ENVID=a1",
        "RCPT TO:<anna@example.com> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;anna@example.com",
        "DATA",
    ] == seen.log[:4]


async def test_options_are_not_said_to_others(transports: Make) -> None:
    async def talk(talk: Talk) -> None:
        await talk.greet()
        await talk.take()

    async with faulty(talk) as seen:
        await transports(seen.port).send(MAIL, within=5)

    assert ["MAIL FROM:<bounce+a1@otp.example.com>", "RCPT TO:<anna@example.com>"] == seen.log[1:3]


async def test_a_kept_connection_is_reset_and_used_again(transports: Make) -> None:
    async def talk(talk: Talk) -> None:
        await talk.greet()
        await talk.take()
        await talk.hear(OK)
        await talk.take()
        await talk.hear("221 bye")

    async with faulty(talk) as seen:
        transport = transports(seen.port)
        await transport.send(MAIL, within=5)
        await transport.send(MAIL, within=5)
        await transport.aclose()

    assert 1 == seen.connections
    assert "RSET" == seen.log[5]
    assert "QUIT" == seen.log[-1]


@pytest.mark.parametrize("reply", ["421 4.4.2 idle", "500 what", "close", "silence"])
async def test_a_dead_connection_is_replaced_before_anything_is_said(
    transports: Make, reply: str
) -> None:
    async def dies(talk: Talk) -> None:
        await talk.greet()
        await talk.take()
        if reply == "silence":
            await talk.silence()
        elif reply != "close":
            await talk.hear(reply)

    async def lives(talk: Talk) -> None:
        await talk.greet()
        await talk.take()

    async with faulty(dies, lives) as seen:
        transport = transports(seen.port, probe=0.05)
        answers = [await transport.send(MAIL, within=5) for _ in range(2)]

    assert [250, 250] == [answer.reply.code for answer in answers]
    assert 2 == seen.connections
    assert 2 == seen.log.count("DATA")


async def test_a_restarted_server_costs_one_trial(transports: Make) -> None:
    async def dies(talk: Talk) -> None:
        await talk.greet()
        await talk.take()
        await talk.hear("421 4.3.2 restarting")

    async def lives(talk: Talk) -> None:
        await talk.greet()
        await talk.take()

    async with faulty(dies, dies, lives) as seen:
        transport = transports(seen.port)
        await asyncio.gather(*(transport.send(MAIL, within=5) for _ in range(2)))
        answer = await transport.send(MAIL, within=5)

    assert (250, 3) == (answer.reply.code, seen.connections)
    assert 1 == seen.log.count("RSET")


async def test_the_time_for_a_trial_is_part_of_the_whole(transports: Make) -> None:
    async def talk(talk: Talk) -> None:
        await talk.greet()
        await talk.take()
        await talk.silence()

    async with faulty(talk) as seen:
        transport = transports(seen.port, probe=30)
        await transport.send(MAIL, within=5)
        error = await failure(transport, within=0.1)

    assert (NotSent, "timeout", 1) == (type(error), error.reason, seen.connections)


async def test_a_connection_that_closed_behind_its_354_has_sent_nothing(
    transports: Make,
) -> None:
    class Gone:
        protocol = None

        def supports_extension(self, name: str) -> bool:
            return False

        async def execute_command(self, *words: bytes) -> SMTPResponse:
            return SMTPResponse(354 if words == (b"DATA",) else 250, "")

    journey = Journey()
    with pytest.raises(SMTPServerDisconnected):
        await transports(1)._converse(cast("Any", Gone()), MAIL, commands(MAIL), journey)

    assert DATA is journey.stage


async def test_an_idle_connection_has_its_time(transports: Make) -> None:
    async def talk(talk: Talk) -> None:
        await talk.greet()
        await talk.take()
        await talk.silence()

    async with faulty(talk) as seen:
        transport = transports(seen.port, keepalive=-1)
        await transport.send(MAIL, within=5)
        await transport.send(MAIL, within=5)

    assert 2 == seen.connections
    assert "RSET" not in seen.log


async def test_a_connection_that_breaks_after_it_was_proved_is_not_replaced(
    transports: Make,
) -> None:
    async def talk(talk: Talk) -> None:
        await talk.greet()
        await talk.take()
        await talk.hear(OK, OK, OK, GO)
        await talk.message()

    async with faulty(talk) as seen:
        transport = transports(seen.port)
        await transport.send(MAIL, within=5)
        error = await failure(transport)

    assert (Lost, "disconnected") == (type(error), error.reason)
    assert 1 == seen.connections


async def test_waiting_for_a_connection_is_not_sent(transports: Make) -> None:
    async with faulty(script(OK, OK, GO, message=True, silent=True)) as seen:
        transport = transports(seen.port, connections=1)
        errors = await asyncio.gather(failure(transport, SHORT), failure(transport, SHORT / 5))

    assert [Lost, NotSent] == [type(error) for error in errors]
    assert 1 == seen.connections


async def test_a_cancelled_call_ends_and_gives_its_place_back(transports: Make) -> None:
    async def lives(talk: Talk) -> None:
        await talk.greet()
        await talk.take()

    async with faulty(script(OK, silent=True), lives) as seen:
        transport = transports(seen.port, connections=1)
        task = asyncio.create_task(transport.send(MAIL, within=30))
        await seen.quiet.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        answer = await transport.send(MAIL, within=5)

    assert 250 == answer.reply.code


async def test_closing_ends_what_is_under_way(transports: Make) -> None:
    async with faulty(script(OK, silent=True)) as seen:
        transport = transports(seen.port)
        task = asyncio.create_task(failure(transport, within=30))
        await seen.quiet.wait()
        await transport.aclose()
        errors = [await task, await failure(transport)]

    assert [(NotSent, "disconnected"), (NotSent, "connect_error")] == [
        (type(error), error.reason) for error in errors
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"recipient": "anna@example.com> NOTIFY=NEVER"},
        {"recipient": "anna@example.com\r\nDATA"},
        {"recipient": "änna@example.com"},
        {"sender": ""},
        {"sender": "a b@example.com"},
    ],
)
async def test_an_address_that_could_be_misread_is_not_sent(
    transports: Make, changes: dict[str, Any]
) -> None:
    async with faulty(script()) as seen:
        with pytest.raises(NotSent, match="bad_request"):
            await transports(seen.port).send(replace(MAIL, **changes), within=5)

    assert 0 == seen.connections
