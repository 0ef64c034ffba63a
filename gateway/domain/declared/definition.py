"""A definition: how to speak to one vendor, parsed from TOML, with every mistake named by its key.

It holds no secret and no number, only the names of secrets, so it can be shown and shipped.

Over 400 lines: one reader for each part of the file, in the order of docs/generic.md.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta, timezone, tzinfo

from gateway.domain.declared import rules, schemes
from gateway.domain.declared.bodies import Kind
from gateway.domain.declared.parts import (
    Answer,
    Call,
    CallbackShape,
    Fields,
    Handshake,
    Match,
    Method,
)
from gateway.domain.declared.paths import Path
from gateway.domain.declared.reading import Table
from gateway.domain.declared.rules import Class, ErrorRule, Words
from gateway.domain.declared.schemes import Auth
from gateway.domain.declared.signatures import Signature
from gateway.domain.declared.template import MESSAGE, Template, Tree
from gateway.domain.delivery import State
from gateway.domain.vendor import Meaning

IGNORED = "ignore"  # a status word that is known and moves nothing
NOT_DELIVERED = "not_delivered"  # the reason of a failure that has no other
FOLLOW_UP = frozenset({"attempt_id", "reference"})  # what a poll or a revocation may name

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ZONE = re.compile(r"([+-])([0-9]{2}):([0-9]{2})")
_PATH = re.compile(r"/[^\s?#]*")
_ELEMENT = re.compile(r"@?[A-Za-z_][A-Za-z0-9_.-]*|#text")
_STATUS = re.compile(r"[1-5]xx")


class DefinitionError(ValueError):
    """A definition that cannot be used: `mistakes` maps each key to what is wrong with it."""

    def __init__(self, mistakes: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {problem}" for key, problem in mistakes.items()))
        self.mistakes = dict(mistakes)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Definition:
    """The eleven parts."""

    name: str
    vendor: str
    channels: frozenset[str]
    base_url: Template
    values: Mapping[str, str]  # with their defaults; "": the route has to give it
    secrets: tuple[str, ...]
    auth: Auth
    send: Call
    answer: Answer
    errors: tuple[ErrorRule, ...]
    match: Match
    callback: CallbackShape | None
    fields: Fields
    statuses: Words
    failures: Words
    signatures: tuple[Signature, ...]
    confirms: frozenset[State]
    idempotent: bool
    validity: bool
    poll: Call | None
    poll_item: Path | None
    revoke: Call | None
    rate: int | None
    concurrency: int | None
    proof: str
    setup: tuple[str, ...]
    callback_url: str
    cost: str
    table: Mapping[str, Meaning] = field(default_factory=dict)  # of statuses, as it is written

    def __repr__(self) -> str:
        return f"Definition({self.name!r})"


def parse(raw: Mapping[str, object], name: str) -> Definition:
    """Raises DefinitionError with every mistake at once."""
    mistakes: dict[str, str] = {}
    made = _definition(Table(raw, "", mistakes), name)
    if not mistakes:
        mistakes.update(_contradictions(made))
    if mistakes:
        raise DefinitionError(mistakes)
    return made


def _definition(table: Table, name: str) -> Definition:
    values = _values(table.table("values"))
    secrets = _names(table, "secrets")
    route = frozenset(values)
    said = MESSAGE | route | {f"secret.{one}" for one in secrets}
    later = FOLLOW_UP | route | {f"secret.{one}" for one in secrets}
    capabilities, limits, sheet = (table.table(k) for k in ("capabilities", "limits", "sheet"))
    poll, revoke = table.table("poll"), table.table("revoke")
    statuses = _meanings(table.table("statuses"))
    made = Definition(
        name=name,
        vendor=table.text("vendor", needed=True),
        channels=frozenset(table.texts("channels")),
        base_url=table.template("base_url", route),
        values=values,
        secrets=secrets,
        auth=schemes.auth(table.table("auth"), route),
        send=_call(table.table("request"), said, route | {"attempt_id"}, Method.POST),
        answer=_answer(table.table("response")),
        errors=tuple(_error(one) for one in table.tables("errors")),
        match=table.choice("correlates", Match),
        callback=_callback(table.table("callback")) if table.has("callback") else None,
        fields=_fields(table.table("receipt")),
        statuses=rules.words(statuses),
        failures=rules.words(_failures(table.table("failures"))),
        signatures=tuple(schemes.signature(one) for one in table.tables("signatures")),
        confirms=frozenset(map(State, capabilities.choices("confirms", list(State)))),
        idempotent=capabilities.flag("idempotent"),
        validity=capabilities.flag("validity"),
        poll_item=poll.each_path("item"),
        poll=_call(poll, later, later, Method.GET) if table.has("poll") else None,
        revoke=_call(revoke, later, later, Method.POST) if table.has("revoke") else None,
        rate=limits.number("rate", 0, 1, 100_000) or None,
        concurrency=limits.number("concurrency", 0, 1, 10_000) or None,
        proof=sheet.text("proof", needed=True),
        setup=sheet.texts("setup"),
        callback_url=sheet.text("callback"),
        cost=sheet.text("cost"),
        table=statuses,
    )
    for one in (table, capabilities, limits, sheet):
        one.close()
    return made


def _values(table: Table) -> Mapping[str, str]:
    values = {}
    for name in table.names():
        values[name] = table.text(name)
        if not _NAME.fullmatch(name) or name in MESSAGE | FOLLOW_UP:
            table.wrong(name, "is not a free name: small letters, digits and _ are")
    return values


def _names(table: Table, name: str) -> tuple[str, ...]:
    given = table.texts(name)
    if odd := [one for one in given if not _NAME.fullmatch(one)]:
        table.wrong(name, f"{odd[0]!r} is not a name: small letters, digits and _ are")
    return given


def _call(table: Table, names: frozenset[str], for_headers: frozenset[str], method: Method) -> Call:
    made = Call(
        method=table.choice("method", Method, method),
        path=table.template("path", names),
        content=table.choice("content", Kind, Kind.JSON),
        headers=table.templates("headers", for_headers),
        query=table.tree("query", names),
        body=table.tree("body", names),
    )
    if not _PATH.fullmatch("".join(p for p in made.path.parts if isinstance(p, str)) or "/"):
        table.wrong("path", "begins with a slash, and has no query of its own")
    if odd := [name for name in made.headers if not schemes.HEADER.fullmatch(name)]:
        table.wrong(f"headers.{odd[0]}", "is not the name of a header")
    if not _flat(made.query):
        table.wrong("query", "is flat")
    _fit(table, made.content, made.body)
    table.close()
    return made


def _fit(table: Table, content: Kind, body: Mapping[str, Tree]) -> None:
    """Whether a body can be written in that way."""
    if content is Kind.QUERY and body:
        table.wrong("body", "stands under `query` where the content is query")
    if content is Kind.FORM and not _flat(body):
        table.wrong("body", "is flat where the content is form")
    if content is Kind.XML and len(body) != 1:
        table.wrong("body", "is one table, the root element")
    if content is Kind.XML and not all(_ELEMENT.fullmatch(name) for name in _keys(body)):
        table.wrong("body", "has a key that is not the name of an element or attribute")


def _flat(body: Mapping[str, Tree]) -> bool:
    """Whether it is fields, and lists of fields."""
    several = [value if isinstance(value, tuple) else (value,) for value in body.values()]
    inside = [one for values in several for one in values]
    return not any(isinstance(one, Mapping | tuple) for one in inside)


def _keys(tree: Tree) -> Iterator[str]:
    """Every key in it, at whatever depth."""
    if isinstance(tree, Mapping):
        yield from tree
        for inside in tree.values():
            yield from _keys(inside)
    elif isinstance(tree, tuple):
        for inside in tree:
            yield from _keys(inside)


def _answer(table: Table) -> Answer:
    made = Answer(
        content=table.choice("content", Kind, Kind.JSON),
        success=_statuses(table, "success") or frozenset(range(200, 300)),
        id=table.paths("id"),
        own_id=table.flag("own_id"),
        accepted=table.predicate("accepted"),
        failed=table.predicate("failed"),
        code=table.paths("code"),
        message=table.paths("message"),
        amount=table.paths("amount"),
        currency=table.paths("currency"),
    )
    if made.content is Kind.QUERY:
        table.wrong("content", "an answer has no query")
    if not made.id and not made.own_id:
        table.wrong("id", "is missing: say where the vendor's id stands, or own_id = true")
    table.close()
    return made


def _statuses(table: Table, name: str) -> frozenset[int]:
    """HTTP statuses: 429, "5xx", or a list of such."""
    value = table.take(name)
    several = value if isinstance(value, list) else [] if value is None else [value]
    found: set[int] = set()
    for one in several:
        if isinstance(one, int) and not isinstance(one, bool) and 100 <= one <= 599:
            found.add(one)
        elif isinstance(one, str) and _STATUS.fullmatch(one):
            found |= set(range(int(one[0]) * 100, int(one[0]) * 100 + 100))
        else:
            table.wrong(name, 'is HTTP statuses such as 429 or "5xx"')
    return frozenset(found)


def _error(table: Table) -> ErrorRule:
    meaning = table.choice("class", Class)
    made = ErrorRule(
        meaning=meaning,
        reason=table.text("reason", rules.REASONS[meaning]),
        status=_statuses(table, "status"),
        code=table.pattern("code"),
        retry_after=table.paths("retry_after"),
        retry_header=table.text("retry_header", "retry-after").lower(),
    )
    if not made.status and made.code is None:
        table.wrong("status", "is missing: a rule has a status, a code or both")
    table.close()
    return made


def _callback(table: Table) -> CallbackShape:
    made = CallbackShape(
        methods=table.choices("methods", ("POST", "GET")) or ("POST",),
        content=table.choice("content", Kind, Kind.JSON),
        items=table.each_path("items"),
        where=table.predicate("where"),
        handshake=_handshake(table.table("handshake")) if table.has("handshake") else None,
    )
    table.close()
    return made


def _handshake(table: Table) -> Handshake:
    made = Handshake(
        token=table.text("token", needed=True),
        secret=table.text("secret", needed=True),
        challenge=table.text("challenge", needed=True),
    )
    table.close()
    return made


def _fields(table: Table) -> Fields:
    status = table.paths("status")
    time = table.table("time")
    made = Fields(
        id=table.paths("id"),
        attempt_id=table.paths("attempt_id"),
        status=tuple((one,) for one in status),
        error=table.paths("error"),
        recipient=table.paths("recipient"),
        time=time.paths("path"),
        time_format=time.text("format"),
        zone=_zone(time),
        amount=table.paths("amount"),
        currency=table.paths("currency"),
    )
    if time.names() and not made.time:
        time.wrong("path", "is missing")
    time.close()
    table.close()
    return made


def _zone(table: Table) -> tzinfo:
    """A fixed offset for times that have none."""
    written = table.text("zone", "+00:00")
    offset = _ZONE.fullmatch(written)
    if offset is None or int(offset[2]) > 14 or int(offset[3]) > 59:
        table.wrong("zone", "is an offset such as +02:00")
        return UTC
    span = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return timezone(-span if offset[1] == "-" else span)


def _meanings(table: Table) -> Mapping[str, Meaning]:
    """word = "ACK", or word = { state = "FAILED", reason = "expired", permanent = true }"""
    found = {}
    for word in table.names():
        if isinstance(short := table.take(word), str):
            state, reason, permanent = short, "", False
            line = table
        else:
            line = table.table(word)
            state, reason = line.text("state", needed=True), line.text("reason")
            permanent = line.flag("permanent")
            line.close()
        if set(word.split("/")) == {rules.ANY}:
            table.wrong(word, "stands for every word; what is not in the table moves nothing")
        if state != IGNORED and state not in list(State)[1:]:
            table.wrong(word, f"must be one of {', '.join(list(State)[1:])}, {IGNORED}")
            continue
        failed = state == State.FAILED
        if (reason or permanent) and not failed:
            table.wrong(word, "only FAILED has a reason, and may be permanent")
        meant = None if state == IGNORED else State(state)
        found[word] = Meaning(meant, (reason or NOT_DELIVERED) if failed else None, permanent)
    return found


def _failures(table: Table) -> Mapping[str, Meaning]:
    """code = "reason", or code = { reason = "unknown_number", permanent = true }"""
    found = {}
    for code in table.names():
        if isinstance(short := table.take(code), str):
            found[code] = Meaning(State.FAILED, short or NOT_DELIVERED)
            continue
        line = table.table(code)
        reason = line.text("reason", needed=True)
        found[code] = Meaning(State.FAILED, reason, permanent=line.flag("permanent"))
        line.close()
    return found


def _contradictions(made: Definition) -> Mapping[str, str]:
    """What cannot be true together."""
    reported = {meaning.state for meaning in made.table.values()}
    secrets = {name for name in made.auth.secrets if name}
    if made.callback is not None and made.callback.handshake is not None:
        secrets.add(made.callback.handshake.secret)
    calls = [made.send, *(call for call in (made.poll, made.revoke) if call is not None)]
    written = {n.removeprefix("secret.") for call in calls for n in call.names if "." in n}
    heard = made.callback is not None or made.poll is not None
    fields = made.fields
    checks = {
        "channels": (made.channels, "is missing"),
        "secrets": (
            secrets <= set(made.secrets) <= secrets | written,
            "are exactly those that auth, handshake and templates name: "
            + ", ".join(sorted(secrets | written)),
        ),
        "capabilities.confirms": (
            made.confirms <= reported and (heard or not made.confirms),
            "are states that [statuses] tells of, over a callback or a poll",
        ),
        "receipt.status": (fields.status or not heard, "is missing"),
        "receipt.id": (
            fields.id or not heard or made.match is not Match.REFERENCE,
            "is missing: receipts are found by it",
        ),
        "receipt.attempt_id": (
            (
                made.match is not Match.ECHO
                or (fields.attempt_id and "attempt_id" in made.send.names)
            ),
            "is missing here or in the request: receipts are found by it",
        ),
        "request": (
            made.match is not Match.TOKEN or "callback_url" in made.send.names,
            "names no {callback_url}, by which receipts are found",
        ),
        "response.own_id": (
            not made.answer.own_id or made.match is not Match.REFERENCE,
            "needs receipts that are found by echo or token",
        ),
        "signatures": schemes.consistent(
            made.signatures,
            made.callback.content if made.callback is not None else None,
            own_url=made.match is Match.TOKEN,
        ),
    }
    return {key: why for key, (fine, why) in checks.items() if not fine}
