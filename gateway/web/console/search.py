"""The page a support person lives on: find a verification, read what happened, act on it.

Every search, every look, every act and every number shown in full is in the audit log before its
page is.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.domain import explanation, identity
from gateway.domain.access import Right
from gateway.domain.advice import advise
from gateway.domain.errors import Forbidden, GatewayError, InvalidInput, NotFound
from gateway.domain.keyring import KeyringError
from gateway.domain.verification import Status
from gateway.services import lookup, operate, release
from gateway.services.accounts import Accounts
from gateway.services.case import counted_under
from gateway.services.operate import Wish
from gateway.services.release import Block
from gateway.services.runtime import Runtime
from gateway.store import support
from gateway.store.desk import Desk
from gateway.store.engine import Engine
from gateway.store.support import File
from gateway.web.console import shown
from gateway.web.console.door import HOME, Door, Visit, act, reason

_DONE = {
    "next": "Done: the next step is on its way.",
    "resend": "Done: the code is on its way once more.",
    "cancel": "Done: the verification is canceled.",
    "release": "Done: nothing stands in the way of a new code.",
}


class Search:
    """Search, the answer, and what may be done about it."""

    def __init__(self, door: Door, runtime: Runtime, desk: Desk, accounts: Accounts) -> None:
        self._door = door
        self._runtime = runtime
        self._desk = desk
        self._accounts = accounts

    def routes(self) -> list[Route]:
        """The pages."""
        one = "/console/verifications/{id}"
        return [
            self._door.page(HOME, Right.LOOK, self.ask),
            self._door.form("/console/search", Right.LOOK, self.search),
            self._door.page(one, Right.LOOK, self.show),
            self._door.page(f"{one}/part", Right.LOOK, self.part, live=True),
            self._door.form(f"{one}/act", Right.ACT, self.act),
            self._door.form(f"{one}/release", Right.ACT, self.release),
            self._door.form(f"{one}/number", Right.REVEAL, self.number),
        ]

    async def ask(self, visit: Visit) -> Response:
        """The empty search."""
        return self._door.render(visit, "search.html", found=None, rows=[])

    async def search(self, visit: Visit) -> Response:
        """POST, so that no number is ever in an address: to the one meant, or to a list."""
        text = visit.form.get("q", "").strip()
        if not text:
            raise InvalidInput("search_empty", "Type a number, a reference or a verification id.")
        runtime = self._runtime
        found = await lookup.search(self._desk, runtime.keyring, runtime.default_region, text)
        what = f"{found.kind} {found.what}: {len(found.verifications)} found"
        await self._accounts.record(act(visit, "search", what))
        best = found.best
        if best is not None and (found.kind != "reference" or len(found.verifications) == 1):
            return RedirectResponse(f"/console/verifications/{best.id}", 303)
        rows = [
            (one, shown.masked(runtime.keyring, one), one.status_at(visit.now))
            for one in found.verifications
        ]
        status = 200 if rows else 404
        return self._door.render(
            visit, "search.html", status, found=found, rows=rows, region=runtime.default_region
        )

    async def show(self, visit: Visit) -> Response:
        """The answer."""
        file = await self._file(visit.request)
        current = file.record.verification
        number = shown.masked(self._runtime.keyring, current)
        await self._accounts.record(act(visit, "look", number, subject=str(current.id)))
        done = _DONE.get(visit.request.query_params.get("done", ""))
        blocks = await self._blocks(file, visit.now)
        return self._page(visit, file, number, done=done, blocks=blocks)

    async def part(self, visit: Visit) -> Response:
        """What of it is live. Only for who has opened the page, and so been written down."""
        file = await self._file(visit.request)
        current = file.record.verification
        look = visit.request.query_params.get("look", "")
        if not hmac.compare_digest(look.encode(), _look(visit, current.id).encode()):
            raise Forbidden("page_needed", "Open the page itself first.")
        number = shown.masked(self._runtime.keyring, current)
        text = self._door.pages.text("part.html", **self._facts(visit, file, number))
        tag = _tag(text)
        if visit.request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(text, media_type="text/html", headers={"ETag": tag})

    async def act(self, visit: Visit) -> Response:
        """Next step, resend, cancel: written down first, then done."""
        file = await self._file(visit.request)
        current = file.record.verification
        if visit.form.get("wish") not in set(Wish):
            raise InvalidInput("wish_unknown", "Choose what is to be done.")
        wish, why = Wish(visit.form["wish"]), reason(visit)
        number, subject = shown.masked(self._runtime.keyring, current), str(current.id)
        await self._accounts.record(act(visit, wish, number, why, subject))
        try:
            await operate.ask(self._runtime, current.id, wish)
        except GatewayError as error:
            await self._accounts.record(act(visit, f"{wish} refused", error.code, "", subject))
            raise
        return RedirectResponse(f"/console/verifications/{subject}?done={wish}", 303)

    async def release(self, visit: Visit) -> Response:
        """Whatever stands in the way of the person's next code: written down, then taken away."""
        file = await self._file(visit.request)
        current, why = file.record.verification, reason(visit)
        told = "; ".join(block.told for block in await self._blocks(file, visit.now))
        number, subject = shown.masked(self._runtime.keyring, current), str(current.id)
        await self._accounts.record(act(visit, "release", f"{number}: {told}", why, subject))
        released = release.releasing(self._runtime.policy, current, self._counted(file))
        await self._runtime.ledger.submit(released)
        return RedirectResponse(f"/console/verifications/{subject}?done=release", 303)

    async def _blocks(self, file: File, now: datetime) -> list[Block]:
        policy, current = self._runtime.policy, file.record.verification
        indexes = self._counted(file)
        keys = release.keys(policy, current, indexes)

        async def read(engine: Engine) -> list[Block]:
            found = await support.standing(engine, keys, current.recipient_index)
            return release.blocks(policy, current, indexes, *found, now=now)

        return await self._desk.read(read)

    def _counted(self, file: File) -> tuple[bytes, ...]:
        record = file.record
        try:
            return counted_under(self._runtime.keyring, record.verification, record.plan)
        except KeyringError:  # its key is gone: what is counted by its own index is known
            return (record.verification.recipient_index,)

    async def number(self, visit: Visit) -> Response:
        """The number in full, once, with a reason; not kept in any page's address."""
        file = await self._file(visit.request)
        current = file.record.verification
        why = reason(visit)
        masked = shown.masked(self._runtime.keyring, current)
        await self._accounts.record(act(visit, "number", masked, why, str(current.id)))
        return self._page(visit, file, masked, full=shown.full(self._runtime.keyring, current))

    async def _file(self, request: Request) -> File:
        named = identity.parse(request.path_params["id"])
        missing = NotFound("verification_not_found", "There is no such verification.")
        if named is None:
            raise missing
        file = await self._desk.read(lambda engine: support.file(engine, named))
        if file is None:
            raise missing
        return file

    def _page(
        self,
        visit: Visit,
        file: File,
        number: str,
        *,
        full: str | None = None,
        done: str | None = None,
        blocks: Sequence[Block] = (),
    ) -> Response:
        facts = self._facts(visit, file, number)
        more = {
            "full": full,
            "done": done,
            "blocks": blocks,
            "look": _look(visit, file.record.verification.id),
            "tag": _tag(self._door.pages.text("part.html", **facts)),
        }
        return self._door.render(visit, "verification.html", **facts, **more)

    def _facts(self, visit: Visit, file: File, number: str) -> dict[str, object]:
        record, now = file.record, visit.now
        current, attempts, plan = record.verification, record.attempts, record.plan
        clean = shown.cleaner(self._runtime.keyring, current)
        shut = self._runtime.standing.shut
        coming, told, _ = explanation.story(plan, current, attempts, now, shut=shut)
        return {
            "current": current,
            "client": file.client,
            "number": number,
            "reference": clean(current.reference or ""),
            "status": current.status_at(now),
            "delivery": explanation.delivery_status(current, attempts, coming),
            "open": current.status_at(now) is Status.PENDING,
            "workflow": plan.workflow,
            "told": told,
            "advice": advise(plan, current, attempts, now, shut=shut),
            "events": shown.timeline(file, clean),
            "repeats": [(one.ordinal, one.repeats) for one in attempts if one.repeats],
            "others": [(one, one.status_at(now)) for one in file.others],
        }


def _tag(text: str) -> str:
    """The live part's ETag: it is sent again when it says something else."""
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


def _look(visit: Visit, named: UUID) -> str:
    """Proof that this session has opened the page of a verification."""
    return hmac.digest(visit.login.form_token.encode(), named.bytes, "sha256").hex()
