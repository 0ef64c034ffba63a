"""Mail by SMTP: one `Mail`, one `SmtpAnswer`, over a few connections that are used again.

aiosmtplib speaks the protocol; what is ours is where the line between NotSent and Lost runs. Until
the first byte of the message is written nothing can have been sent, whatever breaks: NotSent.
From there on a server may have taken it without our hearing so: Lost. Refusals are answers.
Nothing is submitted twice: a kept connection is tried with RSET before it is trusted again, and
only that is ever repeated, on a new connection.

Replies quote addresses, and errors of the library quote replies: what is raised here has a class
name, host and port only.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from aiosmtplib import SMTP, SMTPException, SMTPResponseException, SMTPServerDisconnected
from aiosmtplib.response import SMTPResponse

from gateway.ports import Auth, Lost, Mail, NotSent, SmtpAnswer, SmtpReply, SmtpServer, SmtpStage

__all__ = ["SmtpTransport"]

FAREWELL = 1.0  # seconds for QUIT
MAX_TEXT = 1000  # characters kept of a reply

GO_ON: dict[SmtpStage, frozenset[int]] = {
    SmtpStage.MAIL: frozenset({250}),
    SmtpStage.RCPT: frozenset({250, 251}),  # 251: will forward
    SmtpStage.DATA: frozenset({354}),
}

_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s+|$)")
_ADDRESS = re.compile(r"[!-;=?-~]{3,320}")  # no blanks, no angle brackets: nothing can follow it
_LINE_END = re.compile(rb"\r\n|\r|\n")
_DOT = re.compile(rb"^\.", re.MULTILINE)


@dataclass(slots=True)
class _Journey:
    """How far one message came."""

    stage: SmtpStage = SmtpStage.CONNECT
    recipients: tuple[SmtpReply, ...] = field(default=())


class SmtpTransport:
    """A `ports.Transport` for one account on one mail server.

    `keepalive`: seconds an idle connection is kept; `probe`: seconds it has to prove that it still
    lives. `ssl_context`: whom to trust, in place of what `server` says.
    """

    def __init__(
        self,
        server: SmtpServer,
        *,
        keepalive: float = 30.0,
        probe: float = 2.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._server = server
        self._keepalive = keepalive
        self._probe = probe
        self._trust = ssl_context or ssl.create_default_context(cafile=server.ca_file)
        self._slots = asyncio.Semaphore(server.connections)
        self._all: set[SMTP] = set()
        self._idle: list[tuple[SMTP, float]] = []  # and since when; the last used is the next
        self._closed = False

    async def send(self, request: Mail, *, within: float, auth: Auth | None = None) -> SmtpAnswer:
        """What the server said to it. `within`: seconds, waiting for a connection included."""
        journey = _Journey()
        try:
            async with asyncio.timeout(within), self._slots:
                return await self._carry(request, journey)
        except SMTPResponseException as error:
            if 400 <= error.code < 600:
                return _answer(journey, SMTPResponse(error.code, error.message))
            reason, kind = "protocol_error", type(error).__name__
        except TimeoutError as error:
            reason, kind = "timeout", type(error).__name__
        except (SMTPException, OSError, ValueError) as error:
            reason, kind = _reason(error, journey.stage), type(error).__name__
        where = f"{kind} {self._server.host}:{self._server.port}"
        raise (Lost if journey.stage is SmtpStage.MESSAGE else NotSent)(reason, where)

    async def aclose(self) -> None:
        """Takes leave on idle connections and cuts the others, whose messages end in NotSent or
        Lost; later ones in NotSent.
        """
        self._closed = True
        for client, _ in self._idle:
            with suppress(SMTPException, OSError, TimeoutError):
                await asyncio.wait_for(client.quit(), FAREWELL)
        self._idle.clear()
        for client in tuple(self._all):
            self._drop(client)

    async def _carry(self, mail: Mail, journey: _Journey) -> SmtpAnswer:
        commands = _commands(mail)
        client = await self._kept() or await self._opened(journey)
        try:
            answer = await self._converse(client, mail, commands, journey)
        except BaseException:
            self._drop(client)
            raise
        if client.is_connected and not self._closed:  # after a 421 it is not
            self._idle.append((client, asyncio.get_running_loop().time()))
        else:
            self._drop(client)
        return answer

    async def _kept(self) -> SMTP | None:
        """An idle connection that still answers. If one is dead, so may all the older ones be:
        they are dropped, that a restarted server costs one trial and not one for each.
        """
        if not self._idle:
            return None
        client, since = self._idle.pop()
        young = asyncio.get_running_loop().time() - since <= self._keepalive
        if young and client.is_connected and await self._lives(client):
            return client
        for dead in (client, *(older for older, _ in self._idle)):
            self._drop(dead)
        self._idle.clear()
        return None

    async def _lives(self, client: SMTP) -> bool:
        """RSET also ends what a refusal left open."""
        try:
            async with asyncio.timeout(self._probe):
                return (await client.execute_command(b"RSET")).code == 250
        except (SMTPException, OSError, TimeoutError):
            return False
        except BaseException:
            self._drop(client)
            raise

    async def _opened(self, journey: _Journey) -> SMTP:
        """A new connection, encrypted and logged in."""
        if self._closed:
            raise SMTPServerDisconnected("closed")
        server = self._server
        client = SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.security == "tls",
            start_tls=False,  # ours to call, so that its refusal is told from others
            local_hostname=server.hello,
            tls_context=self._trust,
            timeout=None,  # the total limit holds
        )
        self._all.add(client)
        try:
            for stage, step in self._greetings(client):
                journey.stage = stage
                await step()
        except BaseException:
            self._drop(client)
            raise
        return client

    def _greetings(self, client: SMTP) -> list[tuple[SmtpStage, Callable[[], Awaitable[object]]]]:
        server = self._server
        steps: list[tuple[SmtpStage, Callable[[], Awaitable[object]]]] = [
            (SmtpStage.CONNECT, client.connect),
            (SmtpStage.HELLO, client.ehlo),
        ]
        if server.security == "starttls":
            steps += [(SmtpStage.TLS, client.starttls), (SmtpStage.HELLO, client.ehlo)]
        if server.username is not None:
            login = partial(_login, client, server.username, server.password)
            steps.append((SmtpStage.AUTH, login))
        return steps

    async def _converse(
        self,
        client: SMTP,
        mail: Mail,
        commands: list[tuple[SmtpStage, tuple[bytes, ...], tuple[str, ...]]],
        journey: _Journey,
    ) -> SmtpAnswer:
        """MAIL, RCPT, DATA, and the message: the one thing that cannot be taken back."""
        dsn = client.supports_extension("dsn")
        for stage, words, options in commands:
            journey.stage = stage
            said = (option.encode("ascii") for option in options if dsn)
            response = await client.execute_command(*words, *said)
            if stage is SmtpStage.RCPT:
                journey.recipients = (_reply(response),)
            if response.code not in GO_ON[stage]:
                return _answer(journey, response)
        if (protocol := client.protocol) is None:  # closed behind its 354
            raise SMTPServerDisconnected("closed")
        journey.stage = SmtpStage.MESSAGE
        protocol.write(_framed(mail.content))
        return _answer(journey, await protocol.read_response())

    def _drop(self, client: SMTP) -> None:
        self._all.discard(client)
        client.close()


async def _login(client: SMTP, username: str, password: str) -> None:
    """PLAIN where it is offered: a server that closes after a refusal is then heard out, before a
    second mechanism is tried on a closed connection."""
    if "plain" in client.server_auth_methods:
        await client.auth_plain(username, password)
    else:
        await client.login(username, password)


def _commands(mail: Mail) -> list[tuple[SmtpStage, tuple[bytes, ...], tuple[str, ...]]]:
    """What is said before the message: words, and options for a server that offers DSN."""
    for address in (mail.sender, mail.recipient):
        if not _ADDRESS.fullmatch(address):
            raise ValueError("an address that cannot stand in an envelope")
    sender, recipient = (f"<{one}>".encode() for one in (mail.sender, mail.recipient))
    return [
        (SmtpStage.MAIL, (b"MAIL", b"FROM:" + sender), mail.mail_options),
        (SmtpStage.RCPT, (b"RCPT", b"TO:" + recipient), mail.rcpt_options),
        (SmtpStage.DATA, (b"DATA",), ()),
    ]


def _framed(content: bytes) -> bytes:
    """With every line end made CRLF, so that no line of it can look like the end to any server,
    dots doubled, and the end."""
    lines = _LINE_END.sub(b"\r\n", content)
    if not lines.endswith(b"\r\n"):
        lines += b"\r\n"
    return _DOT.sub(b"..", lines) + b".\r\n"


def _answer(journey: _Journey, response: SMTPResponse) -> SmtpAnswer:
    return SmtpAnswer(journey.stage, _reply(response), journey.recipients)


def _reply(response: SMTPResponse) -> SmtpReply:
    text = " ".join(response.message.encode(errors="replace").decode().split())[:MAX_TEXT]
    enhanced = _ENHANCED.match(text)
    return SmtpReply(
        response.code, enhanced[1] if enhanced else None, text[enhanced.end() if enhanced else 0 :]
    )


def _reason(error: Exception, stage: SmtpStage) -> str:
    """A stable code. What is not offered was found out before anything was said."""
    if isinstance(error, ssl.SSLError | ssl.CertificateError) or isinstance(
        error.__cause__, ssl.SSLError
    ):
        return "tls_error"
    if isinstance(error, OSError):
        return "connect_error" if stage is SmtpStage.CONNECT else "disconnected"
    if isinstance(error, ValueError):
        return "bad_request"
    return {SmtpStage.TLS: "starttls_not_offered", SmtpStage.AUTH: "auth_not_offered"}.get(
        stage, "protocol_error"
    )
