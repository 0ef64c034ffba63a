"""SMPP sessions: one account's connection to its centre, kept bound, and what goes over it.

`SmppTransport` connects, binds, binds again after a pause whenever the session has ended, and
sends within a window and at a pace. `_Session` is one bound connection. What can be told of a
message that got no answer stands on one fact: was its submit_sm handed to the connection? NotSent:
it was not. Lost: it was, and the centre may have sent it; nothing here submits it a second time.

A receipt is answered after `on_receipt` has returned, which is when it is stored. Where it raises,
the centre is asked to come again. Time limits of a session use the `sleep` that is passed in.

Over 400 lines: a session and the transport that renews it share the proof of NotSent.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway.domain import smpp
from gateway.domain.smpp import Answers, Command, Connection, Message, Pdu, ShortMessage, Status
from gateway.ports import Auth, Lost, NotSent

__all__ = ["Pace", "SmppTransport", "pause_before"]

HEARINGS = 100  # receipts being stored at once; the next one waits in the socket
FORGOTTEN = 60.0  # seconds after which an unanswered submit_sm gives its place in the window back
STEADY = 60.0  # seconds a session has to last to be no failure
LONGEST_PAUSE = 60.0  # seconds between two attempts to bind
SLOWEST = 0.2  # submit_sm a second, however often the centre says "too fast"
RECOVERY = 1.0  # submit_sm a second, gained with every second

TOO_FAST = frozenset({Status.ESME_RTHROTTLED, Status.ESME_RMSGQFUL})
BIND_ANSWERS = frozenset({Command.BIND_TRANSCEIVER_RESP, Command.GENERIC_NACK})
NOT_BOUND = frozenset({Status.ESME_RINVBNDSTS, Status.ESME_RALYBND})

OnReceipt = Callable[[bytes], Awaitable[None]]  # a whole PDU; returns when it is stored
Sleep = Callable[[float], Awaitable[None]]
_Answering = asyncio.Future[Pdu | None]  # None: there will be no answer


class Log(Protocol):
    """The part of structlog that is used. Whose session it is, is bound to it already."""

    def info(self, event: str, **facts: object) -> object: ...
    def warning(self, event: str, **facts: object) -> object: ...


class Pace:
    """Turns to submit: half as many a second after a "too fast", then more again, second by
    second, up to `rate`. Without a rate there is no limit until the centre complains."""

    def __init__(self, rate: float | None, monotonic: Callable[[], float]) -> None:
        self._most = rate
        self._rate = rate
        self._monotonic = monotonic
        self._next = self._grown_at = self._slowed_at = monotonic()
        self._taken: deque[float] = deque(maxlen=1000)

    @property
    def rate(self) -> float | None:
        """Turns a second, now."""
        self._grow()
        return self._rate

    def turn(self) -> float:
        """Takes the next turn; how many seconds it is away."""
        now = self._monotonic()
        self._next = max(now, self._next)
        pause = self._next - now
        self._taken.append(self._next)
        if rate := self.rate:
            self._next += 1 / rate
        return pause

    def throttled(self, begun: float) -> None:
        """The centre found what was submitted then too fast. What it says of those submitted
        before we last slowed down is no news."""
        if begun < self._slowed_at:
            return
        now = self._monotonic()
        used = sum(now - 1 < taken <= now for taken in self._taken)
        self._rate = max(SLOWEST, (self.rate or float(used)) / 2)
        self._slowed_at = self._grown_at = now
        self._next = max(self._next, now + 1 / self._rate)

    def _grow(self) -> None:
        now = self._monotonic()
        if self._rate is not None:
            self._rate += RECOVERY * (now - self._grown_at)
            if self._most is not None:
                self._rate = min(self._rate, self._most)
        self._grown_at = now


def pause_before(failures: int, chance: float) -> float:
    """Seconds until the next attempt to bind, doubled with each failure before this one. `chance`,
    0 to 1, keeps many gateways from coming back at once."""
    return min(LONGEST_PAUSE, 2.0 ** min(failures, 10)) * (0.5 + chance / 2)


class SmppTransport:
    """A `ports.Transport` over a session of its own, shared by the routes of one account.

    `random` gives numbers from 0 to 1. `ssl_context`: whom to trust; the system's authorities by
    default.
    """

    def __init__(
        self,
        connection: Connection,
        on_receipt: OnReceipt,
        *,
        log: Log,
        monotonic: Callable[[], float],
        random: Callable[[], float],
        sleep: Sleep = asyncio.sleep,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._connection = connection
        self._on_receipt = on_receipt
        self._log = log
        self._monotonic = monotonic
        self._random = random
        self._sleep = sleep
        self._ssl = ssl_context
        self._pace = Pace(connection.rate, monotonic)
        self._session: _Session | None = None
        self._refusal: Pdu | None = None  # the answer to the last bind, where it was a no
        self._tried = asyncio.Event()  # the first attempt to bind has come to an end
        self._running: asyncio.Task[None] | None = None
        self._hearing: set[asyncio.Task[None]] = set()  # receipts being stored, of all sessions

    async def start(self) -> None:
        """Begins to connect; does not wait for it."""
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Lets receipts be stored and answered, unbinds, closes. Later messages are NotSent."""
        session, self._session = self._session, None
        running, self._running = self._running, None
        self._refusal = None
        await self._stored()
        if session is not None:
            await session.unbind()
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await self._stored()  # what came while it was unbinding

    async def _stored(self) -> None:
        if self._hearing:
            await asyncio.wait(self._hearing, timeout=self._connection.answer_within)

    async def send(
        self, request: ShortMessage, *, within: float, auth: Auth | None = None
    ) -> Answers:
        """The answers to its parts, up to the first that is not "taken"; where the centre does not
        let us in, its answer to the bind. None for a message without parts.

        `within`: seconds for all of it. Raises NotSent or Lost.
        """
        progress = _Progress()
        try:
            async with asyncio.timeout(within):
                for part in request.parts:
                    progress.answers.append(await self._submit(part, progress))
                    if progress.answers[-1].status:
                        break
        except TimeoutError:
            raise progress.failure("timeout") from None
        return tuple(progress.answers)

    async def _submit(self, part: Message, progress: "_Progress") -> Pdu:
        try:
            body = part.write()
        except smpp.SmppError:
            raise progress.failure("not_writable") from None
        if self._session is None and self._running is not None:
            await self._tried.wait()
        session = self._session
        if session is None and self._refusal is not None:
            return self._refusal
        answering = await self._hand_over(session, body) if session is not None else None
        if session is None or answering is None:
            raise progress.failure("not_bound")
        progress.written = True
        begun = self._monotonic()
        answer = await answering
        if answer is None:
            raise Lost("connection_lost" if session.ended.is_set() else "no_answer")
        if answer.status in TOO_FAST:
            self._pace.throttled(begun)
        if answer.status in NOT_BOUND:
            session.end("the centre says that we are not bound")
        return answer

    async def _hand_over(self, session: "_Session", body: bytes) -> _Answering | None:
        """Waits for a place in the window and for its turn. None: nothing was written."""
        if not await session.place():
            return None
        answering = None
        try:
            if pause := self._pace.turn():
                await self._sleep(pause)
            answering = session.begin(Command.SUBMIT_SM, body, in_window=True)
        finally:
            if answering is None:
                session.free()
        return answering

    async def _run(self) -> None:
        """A session after the other, with pauses between them."""
        failures = 0
        while True:
            began = self._monotonic()
            try:
                why = await self._live()
            except Exception as error:  # noqa: BLE001  a defect must not keep us away for good
                why = f"a defect: {type(error).__name__}"
            if self._running is None:
                return  # we ended it
            if self._monotonic() - began >= STEADY:
                failures = 0
            pause = pause_before(failures, self._random())
            failures += 1
            self._log.warning("smpp_session_ended", why=why, again_in=round(pause, 1))
            await self._sleep(pause)

    async def _live(self) -> str:
        """Connects, binds and serves one session; why it ended."""
        try:
            async with asyncio.timeout(self._connection.answer_within):
                reader, writer = await asyncio.open_connection(
                    self._connection.host, self._connection.port, ssl=self._context()
                )
        except (OSError, TimeoutError, ValueError) as error:  # name look-up, TCP, TLS
            self._refusal = None
            self._tried.set()
            return f"not connected: {type(error).__name__}"
        session = _Session(reader, writer, self._connection, self._on_receipt, self._tools())
        session.open()
        try:
            if refused := await self._bind(session):
                return refused
            await session.ended.wait()
        finally:
            self._session = None
            self._tried.set()
            session.end("given up")
        return session.why

    async def _bind(self, session: "_Session") -> str | None:
        """None once it is bound, or else why not."""
        answer = await session.ask(Command.BIND_TRANSCEIVER, self._connection.bind())
        self._refusal = None
        if answer is None:
            return session.why or "no answer to the bind"
        if answer.status and answer.command in BIND_ANSWERS:
            self._refusal = replace(answer, command=Command.BIND_TRANSCEIVER_RESP)
            return f"not let in: {smpp.status_name(answer.status)}"
        if answer.command != Command.BIND_TRANSCEIVER_RESP:
            return "an odd answer to the bind"
        self._session = session
        self._tried.set()
        self._log.info("smpp_bound")
        return None

    def _context(self) -> ssl.SSLContext | None:
        if not self._connection.tls:
            return None
        if self._ssl is None:
            self._ssl = ssl.create_default_context()
        return self._ssl

    def _tools(self) -> "_Tools":
        return _Tools(self._sleep, self._monotonic, self._log, self._hearing)


class _Progress:
    """How far a message has come."""

    def __init__(self) -> None:
        self.written = False
        self.answers: list[Pdu] = []

    def failure(self, reason: str) -> NotSent | Lost:
        return Lost(reason) if self.written else NotSent(reason)


@dataclass(frozen=True, slots=True)
class _Tools:
    """What a session is lent by its transport."""

    sleep: Sleep
    monotonic: Callable[[], float]
    log: Log
    hearing: set[asyncio.Task[None]]  # outlive the session: storing goes on


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request without an answer yet."""

    answer: _Answering
    begun: float
    in_window: bool


class _Session:
    """One connection: its sequence numbers, what waits for answers, what the centre asks of us."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: Connection,
        on_receipt: OnReceipt,
        tools: _Tools,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._connection = connection
        self._on_receipt = on_receipt
        self._tools = tools
        self._sequence = 0
        self._asked: dict[int, _Asked] = {}
        self._window = asyncio.Semaphore(connection.window)
        self._hearings = asyncio.Semaphore(HEARINGS)
        self._heard_at = tools.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()  # reading, keeping the link
        self.ended = asyncio.Event()
        self.why = ""

    def open(self) -> None:
        """Begins to read and to keep the link alive."""
        self._spawn(self._read(), self._tasks)
        self._spawn(self._keep(), self._tasks)

    def end(self, why: str) -> None:
        """Closes it, if it is not closed yet; nothing that waits will be answered."""
        if self.ended.is_set():
            return
        self.why = why
        self.ended.set()
        for sequence in list(self._asked):
            self._resolve(sequence, None)
        self._writer.close()
        for task in self._tasks:
            task.cancel()

    async def unbind(self) -> None:
        """The orderly end."""
        await self.ask(Command.UNBIND)
        self.end("unbound")

    async def place(self) -> bool:
        """Waits for a place in the window. False: the session has ended."""
        await self._window.acquire()
        if self.ended.is_set():
            self.free()  # for the next who waits, so that all hear of it
            return False
        return True

    def free(self) -> None:
        """Gives a place in the window back."""
        self._window.release()

    def begin(
        self, command: Command, body: bytes = b"", *, in_window: bool = False
    ) -> _Answering | None:
        """Hands a request to the connection. None: it was closed already."""
        sequence = self._next_sequence()
        if not self._write(Pdu(command, 0, sequence, body)):
            return None
        answer: _Answering = asyncio.get_running_loop().create_future()
        self._asked[sequence] = _Asked(answer, self._tools.monotonic(), in_window)
        return answer

    async def ask(self, command: Command, body: bytes = b"") -> Pdu | None:
        """The answer to a request; None when there is none in time."""
        answering = self.begin(command, body)
        if answering is None:
            return None
        timer = asyncio.ensure_future(self._tools.sleep(self._connection.answer_within))
        either: set[asyncio.Future[Any]] = {answering, timer}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return answering.result() if answering.done() else None

    async def _read(self) -> None:
        """Takes PDUs as they come, until the connection or the centre's sense ends."""
        try:
            while not self.ended.is_set():
                head = await self._reader.readexactly(4)
                rest = await self._reader.readexactly(smpp.length_of(head) - len(head))
                await self._take(Pdu.read(head + rest))
        except asyncio.IncompleteReadError as error:
            self.end("closed in the middle of a PDU" if error.partial else "closed by the centre")
        except smpp.SmppError as error:
            self._write(Pdu(Command.GENERIC_NACK, Status.ESME_RINVCMDLEN, 0))
            self.end(str(error))
        except Exception as error:  # noqa: BLE001  reset, or a defect: nobody may go on waiting
            self.end(type(error).__name__)

    async def _take(self, pdu: Pdu) -> None:
        self._heard_at = self._tools.monotonic()
        answer = pdu.command | smpp.RESPONSE
        if pdu.command & smpp.RESPONSE:
            if not self._resolve(pdu.sequence, pdu):
                status = smpp.status_name(pdu.status)
                self._tools.log.warning("smpp_answer_to_nothing", status=status)
        elif pdu.command in (Command.DELIVER_SM, Command.DATA_SM):
            await self._hearings.acquire()
            self._spawn(self._hear(pdu), self._tools.hearing)
        elif pdu.command == Command.ENQUIRE_LINK:
            self._write(Pdu(answer, 0, pdu.sequence))
        elif pdu.command == Command.UNBIND:
            self._write(Pdu(answer, 0, pdu.sequence))
            self.end("unbound by the centre")
        else:
            self._write(Pdu(Command.GENERIC_NACK, Status.ESME_RINVCMDID, pdu.sequence))

    async def _hear(self, pdu: Pdu) -> None:
        """Has a receipt stored, and only then answers it."""
        status = Status.ESME_ROK
        try:
            await self._on_receipt(pdu.write())
        except Exception as error:  # noqa: BLE001  whatever it was, it is not stored
            status = Status.ESME_RX_T_APPN
            self._tools.log.warning("smpp_receipt_not_stored", problem=type(error).__name__)
        finally:
            self._hearings.release()
        body = smpp.write_message_id("")
        self._write(Pdu(pdu.command | smpp.RESPONSE, status, pdu.sequence, body))
        with contextlib.suppress(OSError):  # the reader ends the session
            await self._writer.drain()

    async def _keep(self) -> None:
        """Asks whether the centre is still there when it has been silent."""
        while True:
            await self._tools.sleep(self._connection.enquire_every)
            now = self._tools.monotonic()
            for sequence, asked in list(self._asked.items()):
                if asked.in_window and now - asked.begun >= FORGOTTEN:
                    self._resolve(sequence, None)
            silent = now - self._heard_at >= self._connection.enquire_every
            if silent and await self.ask(Command.ENQUIRE_LINK) is None:
                self.end("no answer to enquire_link")

    def _resolve(self, sequence: int, answer: Pdu | None) -> bool:
        asked = self._asked.pop(sequence, None)
        if asked is None:
            return False
        if asked.in_window:
            self.free()
        if not asked.answer.done():  # else nobody waits any more
            asked.answer.set_result(answer)
        return True

    def _next_sequence(self) -> int:
        while True:
            self._sequence = self._sequence % smpp.LAST_SEQUENCE + 1
            if self._sequence not in self._asked:
                return self._sequence

    def _write(self, pdu: Pdu) -> bool:
        if self._writer.is_closing():
            return False
        self._writer.write(pdu.write())
        return True

    def _spawn(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
