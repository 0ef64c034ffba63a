"""A verification as a support person reads it: what `/otp/status` answers, in order of time."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from gateway.cli.output import table

if TYPE_CHECKING:
    from rich.console import Console

_COLUMNS = ("time (UTC)", "#", "channel, route", "state", "who says so · the vendor's clock")
_CAUSES = {
    "first": "the request itself",
    "silence": "the one before was not confirmed in time",
    "failed": "the one before failed",
    "refused": "the one before was not taken",
    "unknown": "unknown whether the one before was taken",
    "resend": "the person asked again",
    "next": "the next step was asked for",
}


def render(status: Mapping[str, Any], out: "Console") -> None:
    """Print it: header, explanation, timeline. `status` as JSON has it."""
    for name, text in _header(status):
        out.print(f"{name:<13} {text}")
    out.print()
    out.print(status["explanation"], soft_wrap=not out.is_terminal)
    out.print()
    table(_COLUMNS, list(_rows(status)), out)
    for note in _notes(status):
        out.print(note)


def _header(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "verification", status["verification_id"]
    yield "number", status["recipient"] or "erased"
    yield "status", f"{status['status']}, delivery {status['delivery_status'] or 'none'}"
    yield "workflow", status["workflow"]
    if status["reference"]:
        yield "reference", status["reference"]
    ended = f", ended {_moment(status['ended_at'])}" if status["ended_at"] else ""
    yield "created", f"{status['created_at'][:10]} {_moment(status['created_at'])}{ended}"
    yield "expires", f"{_moment(status['expires_at'])}"
    yield "left", f"{status['checks_left']} checks, {status['sends_left']} sends"


def _rows(status: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Of one moment: what was heard of earlier attempts, then what was begun, then its own."""
    attempts = {attempt["attempt_id"]: attempt for attempt in status["attempts"]}
    entries = [
        ((attempt["queued_at"], attempt["ordinal"], -1), _begun(attempt))
        for attempt in status["attempts"]
    ]
    for number, move in enumerate(status["transitions"]):
        attempt = attempts.get(move["attempt_id"])
        ordinal = attempt["ordinal"] if attempt else len(attempts) + 1
        entries.append(((move["recorded_at"], ordinal, number), _moved(move, attempt)))
    for _, row in sorted(entries, key=lambda entry: entry[0]):
        yield row


def _begun(attempt: Mapping[str, Any]) -> tuple[Any, ...]:
    why = _CAUSES.get(attempt["cause"], attempt["cause"])
    return _moment(attempt["queued_at"]), attempt["ordinal"], _path(attempt), "QUEUED", why


def _moved(move: Mapping[str, Any], attempt: Mapping[str, Any] | None) -> tuple[Any, ...]:
    moved = f"{move['before']} → {move['after']}"
    return (
        _moment(move["recorded_at"]),
        attempt["ordinal"] if attempt else "",
        _path(attempt) if attempt else "",
        moved if move["applied"] else f"{move['after']}, not moved",
        _said(move, attempt),
    )


def _path(attempt: Mapping[str, Any]) -> str:
    channel, route = attempt["channel"], attempt["route"]
    return str(channel) if channel == route else f"{channel} {route}"


def _said(move: Mapping[str, Any], attempt: Mapping[str, Any] | None) -> str:
    """Source, vendor's word, our reason, the vendor's clock."""
    parts = [move["source"]]
    if move["word"]:
        parts.append(move["word"])
    if attempt is not None and move["applied"] and move["after"] == attempt["state"]:
        why = ": ".join(part for part in (attempt["reason"], attempt["error"]) if part)
        parts += [f"({why})"] if why else []
    if move["provider_time"]:
        parts.append(f"· {move['provider_time']}")
    return " ".join(parts)


def _notes(status: Mapping[str, Any]) -> Iterator[str]:
    for attempt in status["attempts"]:
        if attempt["repeats"]:
            yield (
                f"Attempt {attempt['ordinal']}: receipts heard again and only counted: "
                f"{attempt['repeats']}."
            )
    for account, count in (status.get("receipts_kept") or {}).items():
        yield f"Receipts of account {account} kept aside (unmatched or odd): {count}."


def _moment(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%H:%M:%S.%f")[:-3]
