"""structlog set-up: JSON lines, one per step, with ids; numbers masked, codes and keys never.

Lines are gathered and written a few times a second, or at once when one is a warning or worse:
a write per line would cost as much as the line.
"""

import asyncio
import atexit
import logging
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import is_dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO

import orjson
import structlog

from gateway.domain import recipient

FLUSH_EVERY = 0.1  # seconds a line may wait
_MOST = 65_536  # bytes that are gathered
_KEYS = re.compile(r"otp_(?:live|test)_[A-Za-z0-9_-]+|Bearer [^\s\"]+")
# Subclasses of str and dataclasses may be or hold a Secret: they are shown by `_shown`.
_STRICT = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_UTC_Z
_WHOLE = _STRICT | orjson.OPT_APPEND_NEWLINE
_LEVELS = ("debug", "info", "warning", "error", "critical")
_PATIENT = frozenset({"debug", "info"})  # whose lines may wait
_SUSPECT = re.compile(r"[0-9]|otp_|Bearer")
_SECRET_FIELDS = frozenset({"code", "key", "authorization", "secret", "token", "api_key", "text"})
_FREE_FIELDS = frozenset({"detail", "error", "word", "problem", "exception"})
_LOOKED_AT = _SECRET_FIELDS | _FREE_FIELDS

Line = tuple[str | None, Mapping[str, Any], str]  # event, facts, level


class BufferedOutput:
    """A file for structlog's BytesLogger that gathers what is written."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._waiting: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self.urgent = False  # the next flush writes at once
        self.dropped = 0  # lines that could not be written

    def write(self, line: bytes) -> int:
        self._waiting.append(line)
        self._size += len(line)
        return len(line)

    def gather(self, lines: Sequence[bytes]) -> None:
        """Several at once."""
        self._waiting += lines
        self._size += sum(map(len, lines))

    def flush(self) -> None:
        """Called after each line: write now when much has gathered or no loop runs, else soon."""
        if self.urgent or self._size >= _MOST:
            self.urgent = False
            self.drain()
        elif self._timer is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self.drain()
            else:
                self._timer = loop.call_later(FLUSH_EVERY, self.drain)

    def drain(self) -> None:
        """Write everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            lines, self._waiting, self._size = self._waiting, [], 0
            try:
                self._target.write(b"".join(lines))
                self._target.flush()
            except (OSError, ValueError):  # a closed file is a ValueError
                self.dropped += len(lines)
                raise
        else:
            self._target.flush()


def render(output: BufferedOutput, _: Any, level: str, event: MutableMapping[str, Any]) -> bytes:
    """One line: level, time (UTC), and the fields, redacted. One step and not five: it is on the
    path of every message. A warning or worse is not left to wait.
    """
    event["level"] = level
    event["timestamp"] = datetime.now(UTC)
    redact(event)
    output.urgent |= level not in _PATIENT
    return orjson.dumps(event, _shown, _STRICT)


def _shown(value: object) -> str:
    """Anything that JSON does not know; a `Secret` shows nothing of itself."""
    return repr(value) if isinstance(value, str) or is_dataclass(value) else str(value)


def redact(event: MutableMapping[str, Any]) -> None:
    """The last net: secrets by the name of their field, digits and keys in free text."""
    for name in _LOOKED_AT.intersection(event):
        text = event[name]
        if name in _SECRET_FIELDS:
            event[name] = "•••"
        elif isinstance(text, str) and not text.isalpha() and _SUSPECT.search(text):
            event[name] = recipient.redact(_KEYS.sub("•••", text))


def _direct(level: str, output: BufferedOutput) -> type[Any]:
    """structlog's filtering logger, whose plain lines go to `render` and the output without the
    chain in between: the same line for half the price.
    """

    heard = frozenset(_LEVELS[_LEVELS.index(level) :])

    class Direct(structlog.make_filtering_bound_logger(level)):  # type: ignore[misc]
        def tell(self, lines: Iterable[Line]) -> None:
            """Lines of one moment, their fields no keywords here: Python compares each keyword with
            the name of each parameter, and all of them cost as much as half a line. Raises the
            first error of a line, when the others are told."""
            context, now = self._context, datetime.now(UTC)
            rendered: list[bytes] = []
            failure: Exception | None = None
            for event, facts, urgency in lines:
                if urgency not in heard:
                    continue
                whole = {**context, **facts, "event": event, "level": urgency, "timestamp": now}
                try:
                    if not _LOOKED_AT.isdisjoint(whole):
                        redact(whole)
                    rendered.append(orjson.dumps(whole, _shown, _WHOLE))
                except Exception as error:  # noqa: BLE001  one line's
                    failure = failure or error
                output.urgent |= urgency not in _PATIENT
            if rendered:
                output.gather(rendered)
                output.flush()
            if failure is not None:
                raise failure

        def _proxy_to_logger(
            self, method_name: str, event: str | None = None, *args: Any, **facts: Any
        ) -> Any:
            if args or "exc_info" in facts:
                return super()._proxy_to_logger(method_name, event, *args, **facts)
            self.tell(((event, facts, method_name),))
            return None

    return Direct


def configure(level: str = "info", target: BinaryIO | None = None) -> BufferedOutput:
    """Set structlog up for this process; what it returns is drained at exit."""
    output = BufferedOutput(target or sys.stdout.buffer)
    structlog.configure(
        processors=[structlog.processors.format_exc_info, partial(render, output)],
        wrapper_class=_direct(level, output),
        logger_factory=structlog.BytesLoggerFactory(file=output),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    atexit.register(output.drain)
    return output
