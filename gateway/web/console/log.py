"""The audit log, read and exported. Both are in it too."""

import csv
import io
from collections.abc import AsyncIterator, Mapping

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.domain.access import Right
from gateway.domain.audit import Entry
from gateway.domain.errors import InvalidInput
from gateway.store import audits
from gateway.store.audits import CHUNK, Filter
from gateway.store.desk import Desk
from gateway.web.console.door import Door, Visit, act

PATH = "/console/audit"
SHOWN = 100  # rows on a page
_KINDS = {"csv": "text/csv", "jsonl": "application/x-ndjson"}


class Log:
    """The pages of the audit log."""

    def __init__(self, door: Door, desk: Desk) -> None:
        self._door = door
        self._desk = desk

    def routes(self) -> list[Route]:
        """The pages."""
        return [
            self._door.page(PATH, Right.AUDIT, self.show),
            self._door.form(f"{PATH}/export", Right.AUDIT, self.export, dangerous=True),
        ]

    async def show(self, visit: Visit) -> Response:
        """The newest rows, or those before one."""
        given = visit.request.query_params
        wanted, before = _filter(given), given.get("before", "")
        upto = int(before) if before.isdecimal() and len(before) < 18 else None
        rows = await self._desk.read(lambda engine: audits.newest(engine, wanted, SHOWN + 1, upto))
        more = rows[SHOWN - 1].sequence if len(rows) > SHOWN else None
        return self._door.render(
            visit, "audit.html", rows=rows[:SHOWN], more=more, wanted=wanted, before=upto
        )

    async def export(self, visit: Visit) -> Response:
        """All rows that meet the filter, newest first, as a file."""
        kind, wanted = visit.form.get("format", ""), _filter(visit.form)
        if kind not in _KINDS:
            raise InvalidInput("format_unknown", "There are csv and jsonl.")
        told = ", ".join(
            part for part in (kind, wanted.actor, wanted.action, wanted.subject) if part
        )
        await self._door.accounts.record(act(visit, "audit export", told))
        headers = {"Content-Disposition": f'attachment; filename="audit.{kind}"'}
        write = _csv if kind == "csv" else _lines
        first = (_row(audits.COLUMNS),) if kind == "csv" else ()

        async def parts() -> AsyncIterator[bytes]:
            for part in first:
                yield part
            before = None
            while rows := await self._chunk(wanted, before):
                yield write(rows)
                before = rows[-1].sequence

        return StreamingResponse(parts(), headers=headers, media_type=_KINDS[kind])

    async def _chunk(self, wanted: Filter, before: int | None) -> list[Entry]:
        return await self._desk.read(lambda engine: audits.newest(engine, wanted, CHUNK, before))


def _filter(given: Mapping[str, str]) -> Filter:
    names = ("actor", "action", "subject")
    return Filter(*(given.get(name, "").strip()[:100] for name in names))


def _lines(rows: list[Entry]) -> bytes:
    return b"".join(audits.line(row) for row in rows)


def _csv(rows: list[Entry]) -> bytes:
    return b"".join(_row(audits.cells(row)) for row in rows)


def _row(cells: tuple[str, ...] | list[str]) -> bytes:
    held = io.StringIO()
    csv.writer(held).writerow(cells)
    return held.getvalue().encode()
