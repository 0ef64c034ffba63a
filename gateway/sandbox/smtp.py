"""A mail server: enough of ESMTP for a submission, and notifications of what became of it.

    EHLO, AUTH PLAIN, MAIL FROM:<…> RET= ENVID=, RCPT TO:<…> NOTIFY= ORCPT=, DATA, RSET, NOOP, QUIT

One account: who it is, and where the server that receives its bounces posts them. Each
notification (RFC 3464) is posted whole, as message/rfc822. Without encryption, hence for the
loopback only. One recipient a message. A real server that says "relayed" says nothing afterwards;
this one goes on, so that every stage can be seen.

`accounts["smtp"]`: username, password, callback_url.
"""

import asyncio
import base64
import email
import email.policy
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime

from starlette.responses import Response

from gateway.sandbox.answers import HalfAnswer
from gateway.sandbox.behaviour import MAILBOX, Answer, Behaviour, Channel, Stage
from gateway.sandbox.carrier import Carrier, Letter, Write
from gateway.sandbox.phones import Message

HOST = "mail.sandbox.example"
MAX_LINE = 2048  # bytes
MAX_MESSAGE = 256 * 1024  # bytes
AGAIN = (1.0, 2.0, 4.0)  # what takes the bounces repeats one that nobody took
EXTENSIONS = ("AUTH PLAIN", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", f"SIZE {MAX_MESSAGE}")

WORDS = {
    Stage.UNDERWAY: "relayed",
    Stage.ODD: "sandbox-unheard-of",
    Stage.FAILED: "failed",
    Stage.DELIVERED: "delivered",
}
STATUS = {"relayed": "2.0.0", "delivered": "2.1.5", "failed": "5.1.1"}
NOTHING = "(refused before its text was sent)"

_PATH = re.compile(
    r"(?:FROM|TO):\s*<([^<>\s]*)>((?: [A-Za-z0-9-]+(?:=[!-<>-~]+)?)*)", re.IGNORECASE
)
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_NOTIFY = re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*")


@dataclass(slots=True)
class Envelope:
    """What was said of a message before it came."""

    sender: str
    envid: str | None
    recipient: str = ""
    orcpt: str | None = None
    notify: frozenset[str] = frozenset({"FAILURE"})
    behaviour: Behaviour = Behaviour.DELIVERED
    answer: Answer = Answer.AT_ONCE


class MailServer:
    """Listens once started."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """The port it listens on; asked again, the same."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, host, port, limit=MAX_MESSAGE)
        return int(self._server.sockets[0].getsockname()[1])

    async def aclose(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            self._server.close()
        sessions = tuple(self._sessions)
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.create_task(_Session(self._carrier, reader, writer).run())
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)


class Goodbye(Exception):
    """The session ends here."""


@dataclass(slots=True)
class _Session:
    """One connection."""

    carrier: Carrier
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeted: bool = False
    known: bool = False  # logged in
    envelope: Envelope | None = None
    account: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.account = self.carrier.settings.accounts.get("smtp", {})

    async def run(self) -> None:
        words: dict[str, Callable[[str], Awaitable[str]]] = {
            "EHLO": self.hello,
            "HELO": self.hello,
            "AUTH": self.log_in,
            "MAIL": self.mail,
            "RCPT": self.rcpt,
            "DATA": self.data,
            "RSET": self.reset,
            "NOOP": self.nothing,
        }
        try:
            await self.say(f"220 {HOST} ESMTP sandbox")
            while (line := await self.line()).upper() != "QUIT":
                word, _, rest = line.partition(" ")
                step = words.get(word.upper())
                await self.say(await step(rest) if step else "502 5.5.1 Not known here")
            await self.say("221 2.0.0 Bye")
        except (Goodbye, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # a caller that leaves in the middle, or is left, is an ordinary thing here
        finally:
            self.writer.close()

    async def say(self, reply: str) -> None:
        self.writer.write(reply.encode() + b"\r\n")
        await self.writer.drain()

    async def line(self) -> str:
        raw = await self.reader.readuntil(b"\r\n")
        if len(raw) > MAX_LINE:
            raise Goodbye
        return raw[:-2].decode("ascii", "replace")

    async def hello(self, rest: str) -> str:
        self.greeted, self.envelope = True, None
        return "\r\n".join([f"250-{HOST}", *(f"250-{one}" for one in EXTENSIONS), "250 HELP"])

    async def reset(self, rest: str) -> str:
        self.envelope = None
        return "250 2.0.0 Ok"

    async def nothing(self, rest: str) -> str:
        return "250 2.0.0 Ok"

    async def log_in(self, rest: str) -> str:
        mechanism, _, given = rest.partition(" ")
        if not self.greeted or self.known:
            return "503 5.5.1 Not now"
        if mechanism.upper() != "PLAIN":
            return "504 5.5.4 Only PLAIN"
        if not given:
            await self.say("334 ")
            given = await self.line()
        try:
            login = base64.b64decode(given, validate=True)
        except ValueError:
            return "501 5.5.2 Not base64"
        right = "\0{}\0{}".format(self.account.get("username"), self.account.get("password"))
        self.known = hmac.compare_digest(login, right.encode()) and bool(self.account)
        if not self.known:
            return "535 5.7.8 Error: authentication failed"
        return "235 2.7.0 Authentication successful"

    async def mail(self, rest: str) -> str:
        if not self.known:
            return "530 5.7.0 Authentication required"
        if self.envelope is not None:
            return "503 5.5.1 Nested MAIL command"
        path, options = _arguments(rest)
        if path is None or not MAILBOX.fullmatch(path):
            return "501 5.1.7 Bad sender address syntax"
        envid = options.pop("ENVID", None)
        if options.pop("RET", "HDRS") not in {"HDRS", "FULL"} or not _is_xtext(envid, 100):
            return "501 5.5.4 RET=FULL or HDRS and an ENVID of at most 100 characters, please"
        if options.keys() - {"SIZE", "BODY"}:
            return "555 5.5.4 Unsupported option"
        self.envelope = Envelope(path, envid)
        return "250 2.1.0 Ok"

    async def rcpt(self, rest: str) -> str:
        envelope = self.envelope
        if envelope is None:
            return "503 5.5.1 Need MAIL command"
        if envelope.recipient:
            return "452 4.5.3 One recipient a message"
        path, options = _arguments(rest)
        if path is None or not MAILBOX.fullmatch(path):
            return "501 5.1.3 Bad recipient address syntax"
        notify, orcpt = options.pop("NOTIFY", "FAILURE").upper(), options.pop("ORCPT", None)
        if options or not _NOTIFY.fullmatch(notify) or not _is_xtext(orcpt, 500):
            return "501 5.5.4 Bad NOTIFY or ORCPT"
        envelope.behaviour, envelope.answer = self.carrier.decide(path, Channel.EMAIL)
        if envelope.answer in {Answer.THROTTLED, Answer.REFUSED}:
            self._add(envelope, path, NOTHING, None)
            if envelope.answer is Answer.THROTTLED:
                return "450 4.7.1 Too many messages, come again later"
            return f"550 5.1.1 <{path}>: Recipient address rejected: User unknown"
        envelope.recipient, envelope.orcpt = path, orcpt
        envelope.notify = frozenset(notify.split(","))
        return "250 2.1.5 Ok"

    async def data(self, rest: str) -> str:
        envelope = self.envelope
        if envelope is None or not envelope.recipient:
            return "503 5.5.1 Need RCPT command"
        await self.say("354 End data with <CR><LF>.<CR><LF>")
        raw = await self._message()
        self.envelope = None
        letter = email.message_from_bytes(raw, policy=email.policy.default)
        body = letter.get_body(("plain",))
        text = "\n".join(body.get_content().splitlines()).strip() if body is not None else ""
        message = self._add(envelope, envelope.recipient, text, str(letter["From"] or "") or None)
        if not envelope.answer.accepts:
            return "451 4.3.0 Queue file write error"
        story = self.carrier.play(message, self._writer(envelope, raw), AGAIN, words=WORDS)
        given = await self.carrier.give(envelope.answer, Response(), [story])
        if isinstance(given, HalfAnswer):
            raise Goodbye
        return f"250 2.0.0 Ok: queued as {message.id}"

    async def _message(self) -> bytes:
        lines, size = [], 0
        while (line := await self.reader.readuntil(b"\r\n")) != b".\r\n":
            size += len(line)
            if size > MAX_MESSAGE:
                raise Goodbye
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def _add(self, envelope: Envelope, number: str, text: str, sender: str | None) -> Message:
        return self.carrier.phones.add(
            Message(
                id=secrets.token_hex(5).upper(),
                channel=Channel.EMAIL,
                number=number,
                text=text,
                sender=sender,
                at=self.carrier.now(),
                client_ref=envelope.envid,
                behaviour=envelope.behaviour,
                answer=envelope.answer,
            )
        )

    def _writer(self, envelope: Envelope, raw: bytes) -> Write | None:
        """Successes are told to those who asked; failures to all but those who did not want to."""
        url = self.account.get("callback_url")
        wanted = "FAILURE" if envelope.behaviour is Behaviour.FAILED else "SUCCESS"
        if not url or wanted not in envelope.notify:
            return None
        headers = raw.partition(b"\r\n\r\n")[0].decode("ascii", "replace")

        def write(word: str, at: datetime) -> Letter:
            content = notification(envelope, headers, word, at)
            return Letter(url, content, {"Content-Type": "message/rfc822"})

        return write


def notification(envelope: Envelope, headers: str, word: str, at: datetime) -> bytes:
    """A delivery status notification (RFC 3464) in a report (RFC 6522)."""
    part, moment = f"sandbox-{secrets.token_hex(8)}", format_datetime(at)
    of_message = [f"Reporting-MTA: dns; {HOST}"]
    if envelope.envid is not None:
        of_message.insert(0, f"Original-Envelope-Id: {envelope.envid}")
    of_recipient = [
        f"Final-Recipient: rfc822; {envelope.recipient}",
        f"Action: {word}",
        f"Status: {STATUS.get(word, '2.0.0')}",
        f"Last-Attempt-Date: {moment}",
    ]
    if envelope.orcpt is not None:
        of_recipient.insert(0, f"Original-Recipient: {envelope.orcpt}")
    lines = [
        f"From: Mail Delivery System <MAILER-DAEMON@{HOST}>",
        f"To: {envelope.sender}",
        f"Date: {moment}",
        f"Subject: Delivery status: {word}",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f' boundary="{part}"',
        "",
        f"--{part}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"Your message to {envelope.recipient}: {word}.",
        f"--{part}",
        "Content-Type: message/delivery-status",
        "",
        *of_message,
        "",
        *of_recipient,
        "",
        f"--{part}",
        "Content-Type: text/rfc822-headers",
        "",
        headers,
        f"--{part}--",
        "",
    ]
    return "\r\n".join(lines).encode()


def _arguments(rest: str) -> tuple[str | None, dict[str, str]]:
    """The address and the options of MAIL or RCPT."""
    found = _PATH.fullmatch(rest.strip())
    if found is None:
        return None, {}
    pairs = (option.partition("=") for option in found[2].split())
    return found[1], {name.upper(): value for name, _, value in pairs}


def _is_xtext(value: str | None, limit: int) -> bool:
    if value is None:
        return True
    kind, semicolon, address = value.partition(";")
    return len(value) <= limit and bool(_XTEXT.fullmatch(address if semicolon else kind))
