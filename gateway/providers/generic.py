"""Any HTTP API, as a definition in TOML describes it.

docs/generic.md tells the language; `definitions/` holds those that are shipped: Bird, Infobip,
MessageBird (the older API), Plivo, Sinch and Telnyx. The language itself is
`gateway/domain/declared`; here it is acted on, in the order of every other provider.

Unconfirmed: see the head of each definition. Of what is common to them nothing is.

Over 400 lines, as every provider is one file: request, answer, receipts and authentication.
"""

import hmac
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_hex
from typing import ClassVar

from gateway.domain import recipient, vendor
from gateway.domain.declared import (
    bodies,
    paths,
    rules,
    signatures,
    statements,
)
from gateway.domain.declared.definition import Definition
from gateway.domain.declared.parts import Call, Match
from gateway.domain.declared.rules import Class, ErrorRule
from gateway.domain.declared.schemes import Scheme
from gateway.domain.declared.writing import Account, Writer, Written, basic
from gateway.domain.errors import InvalidInput
from gateway.ports import (
    Accepted,
    Auth,
    Callback,
    Correlation,
    Malformed,
    Outcome,
    Outgoing,
    Receipt,
    RefusalKind,
    Refused,
    Reply,
    Request,
    Response,
    RouteSettings,
    Secret,
    Sheet,
    Unknown,
    Wire,
    no_clock,
    post,
)

TOKEN_LIFE = 300.0  # seconds, of a token whose answer does not say

KINDS: Mapping[Class, RefusalKind] = {
    Class.TEMPORARY: RefusalKind.TEMPORARY,
    Class.THROTTLED: RefusalKind.THROTTLED,
    Class.PERMANENT_NUMBER: RefusalKind.PERMANENT,
    Class.PERMANENT_ATTEMPT: RefusalKind.PERMANENT,
    Class.CONFIG: RefusalKind.ACCOUNT,
    Class.AUTH: RefusalKind.ACCOUNT,
}
FAILED_IN_BODY = ErrorRule(Class.PERMANENT_ATTEMPT, "rejected")  # where no rule says better


@dataclass(frozen=True, kw_only=True, slots=True)
class GenericSettings(RouteSettings):
    definition: Definition
    base_url: str | None = None  # None: the definition's
    values: Mapping[str, str] = field(default_factory=dict)  # what its templates refer to
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    callback_secret: tuple[Secret, ...] = ()  # two while one is replaced; none: no receipt gets in
    avoid: float = 86_400.0  # seconds a number is left alone that the vendor says is no good


class Generic:
    Settings = GenericSettings
    wire: ClassVar = Wire.HTTP
    channels = frozenset(
        {"email", "messenger", "rcs", "sms", "telegram", "viber", "voice", "whatsapp"}
    )

    def __init__(self, settings: GenericSettings, now: Callable[[], datetime] = no_clock) -> None:
        if wrong := "; ".join(_mistakes(settings)):
            raise ValueError(wrong)
        declared = settings.definition
        self.name = settings.name
        self.channel = settings.channel
        self.account = settings.account
        self.sender = settings.sender
        self.timeout = settings.timeout
        self.rate = settings.rate if settings.rate is not None else declared.rate
        self.concurrency = min(settings.concurrency, declared.concurrency or settings.concurrency)
        self.confirms = declared.confirms
        self.correlates = Correlation(declared.match)
        self.idempotent = declared.idempotent
        proofs = declared.signatures
        self.signed = bool(proofs) and all(one.signs for one in proofs)
        self.validity = declared.validity
        self.sheet = Sheet(
            vendor=declared.vendor,
            proof=declared.proof,
            setup=declared.setup,
            callback=declared.callback_url,
            cost=declared.cost,
        )
        self._declared = declared
        self._avoid = settings.avoid
        self._secrets = (*settings.secrets.values(), *settings.callback_secret)
        self._callback_secrets = settings.callback_secret
        account = _account(settings)
        self._verify_token = _verify_token(account)
        self._send = _Maker(account, declared.send)
        self.now = now
        self._flow = _flow(account, lambda: self.now().timestamp())
        # `ports.Polls` and `ports.Revokes` are told by the presence of their methods: a definition
        # without [poll] must not look as if it could be asked.
        if declared.poll is not None:
            self._poll = _Maker(account, declared.poll)
            self.build_poll = self._build_poll
            self.parse_poll = self._parse_poll
        if declared.revoke is not None:
            self._revoke = _Maker(account, declared.revoke)
            self.build_revoke = self._build_revoke

    def build(self, outgoing: Outgoing) -> Request:
        return self._send.make(outgoing)

    def auth(self) -> Auth | None:
        return self._flow

    def parse(self, response: Response) -> Outcome:
        status, shape = response.status_code, self._declared.answer
        answer = bodies.read(shape.content, response.content, {})
        error = self._error(status, answer)
        if status not in shape.success:
            return self._refusal(response, answer, error)
        if shape.failed is not None and shape.failed.holds(answer, answer):
            return self._refusal(response, answer, error)
        if shape.accepted is not None and not shape.accepted.holds(answer, answer):
            return Unknown("odd_answer", error)
        reference = vendor.storable(paths.first(shape.id, answer, answer))
        if reference is None and not shape.own_id:
            return Unknown("no_reference", error)
        return Accepted(reference, statements.cost(shape.amount, shape.currency, answer, answer))

    def authenticate(self, callback: Callback) -> bool:
        """One of the signatures fits. All are looked at, so that time does not tell which."""
        shape = self._declared.callback
        if shape is None or callback.method not in shape.methods:
            return False
        if self._declared.match is Match.TOKEN and callback.attempt_id is None:
            return False
        found = False
        for signature in self._declared.signatures:
            found |= signature.proves(callback, self._callback_secrets)
        return found

    def handshake(self, callback: Callback) -> Reply | None:
        shape = self._declared.callback
        rule = shape.handshake if shape is not None else None
        if rule is None or callback.method != "GET" or rule.token not in callback.query:
            return None
        given = callback.query[rule.token].encode(errors="backslashreplace")
        challenge = vendor.storable(callback.query.get(rule.challenge))
        if challenge is None or not hmac.compare_digest(self._verify_token, given):
            return Reply(b"", status=403)
        return Reply(challenge.encode(errors="backslashreplace"))

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        shape = self._declared.callback
        if shape is None:
            return []
        return [
            Malformed(item.wrong, item.raw)
            if item.wrong
            else self._receipt(item.value, item.body, item.raw, callback.attempt_id)
            for item in statements.items(shape, callback.body, callback.query)
        ]

    def _build_poll(self, attempt_id: str, reference: str | None) -> Request | None:
        return self._poll.follow_up(attempt_id, reference)

    def _parse_poll(self, response: Response) -> Receipt | None:
        if response.status_code != 200:
            return None
        body = bodies.read(self._declared.answer.content, response.content, {})
        where = self._declared.poll_item
        item = body if where is None else paths.first((where,), body, body)
        if not isinstance(item, dict):
            return None
        receipt = self._receipt(item, body, response.content, None)
        return receipt if isinstance(receipt, Receipt) else None

    def _build_revoke(self, attempt_id: str, reference: str | None) -> Request | None:
        return self._revoke.follow_up(attempt_id, reference)

    def _receipt(
        self, item: object, body: object, raw: bytes, named: str | None
    ) -> Receipt | Malformed:
        """`named`: the attempt that the callback's own URL names, where each has its own."""
        said = statements.read(self._declared, item, body)
        if said.wrong:
            return Malformed(said.wrong, raw)
        own_url = self._declared.match is Match.TOKEN and named is not None
        if own_url and said.attempt_id not in (None, named):
            return Malformed("names another attempt than its URL", raw)
        return Receipt(
            word=said.word,
            state=said.meaning.state,
            reference=said.reference,
            attempt_id=named if own_url else said.attempt_id,
            reason=said.meaning.reason,
            permanent=said.meaning.permanent,
            recipient=said.recipient,
            provider_time=said.time,
            cost=said.cost,
            avoid=self._avoid if said.meaning.permanent else None,
            raw=raw,
        )

    def _refusal(self, response: Response, answer: object, error: str) -> Outcome:
        shape, status = self._declared.answer, response.status_code
        code = str(paths.text(paths.first(shape.code, answer, answer)) or "")
        listed = self._declared.errors
        rule = rules.classify(
            (*listed, FAILED_IN_BODY) if status in shape.success else listed, status, code
        )
        if rule.meaning is Class.UNCERTAIN:
            return Unknown(rule.reason, error)
        kind = KINDS[rule.meaning]
        return Refused(
            rule.reason,
            kind,
            retry_after=_pause(rule, response, answer) if kind is RefusalKind.THROTTLED else None,
            error=error,
            avoid=self._avoid if rule.meaning is Class.PERMANENT_NUMBER else None,
        )

    def _error(self, status: int, answer: object) -> str:
        shape = self._declared.answer
        said = [paths.text(paths.first(one, answer, answer)) for one in (shape.code, shape.message)]
        text = ": ".join(part for part in said if isinstance(part, str))
        return vendor.redact(text, self._secrets) or f"HTTP {status}"


class _Maker:
    """One kind of request, in httpx's words. Address and headers rarely differ from one message to
    the next, and parsing them takes ten times as long as all the rest."""

    def __init__(self, account: Account, call: Call) -> None:
        self._writer = Writer(account, call)
        self._last: tuple[str, Mapping[str, str]] | None = None
        self._pattern = Request("GET", account.base)

    def make(self, outgoing: Outgoing) -> Request:
        return self._request(self._writer.write(_said(outgoing, self._writer.names)))

    def follow_up(self, attempt_id: str, reference: str | None) -> Request | None:
        written = self._writer.follow_up(attempt_id, reference)
        return self._request(written) if written is not None else None

    def _request(self, written: Written) -> Request:
        if self._last != (written.url, written.headers):
            self._pattern = Request("GET", written.url, headers=dict(written.headers))
            del self._pattern.headers["host"]  # the transport adds it, as HTTP asks
            self._last = written.url, written.headers
        url, headers = self._pattern.url, self._pattern.headers
        if written.method == "POST":
            return post(url, headers, written.content)
        return Request(written.method, url, headers=headers, content=written.content or None)


class _Token(Auth):
    """OAuth2 client credentials: a token is fetched first, and kept until shortly before it ends.

    A 401 makes a new one and one more call: the vendor did not act on the first.
    """

    requires_response_body = True

    def __init__(self, account: Account) -> None:
        rule, constants = account.declared.auth, account.constants
        self._url = rule.token_url.line({**constants, "base_url": account.base})
        self._form = {"grant_type": "client_credentials"}
        self._headers: dict[str, str] = {}
        if scope := rule.scope.line(constants):
            self._form["scope"] = scope
        if rule.in_body:
            self._form |= {"client_id": account.user, "client_secret": account.secret}
        else:
            self._headers["authorization"] = basic(account.user, account.secret)
        self._skew = rule.skew
        self._token: str | None = None
        self._ends = 0.0

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        kept = self._token if time.monotonic() < self._ends else None
        token = kept or self._keep((yield self._question()))
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code != 401:
            return
        if self._token == token:
            self._token = None
        if kept is not None:  # one that was fetched a moment ago would not get better
            token = self._token or self._keep((yield self._question()))
            request.headers["authorization"] = f"Bearer {token}"
            yield request

    def _question(self) -> Request:
        return Request("POST", self._url, headers=self._headers, data=self._form)

    def _keep(self, response: Response) -> str:
        answer = vendor.json_object(response.content)
        token, life = answer.get("access_token"), answer.get("expires_in")
        if response.status_code != 200 or not isinstance(token, str):
            raise ValueError("no token")
        if not vendor.fits_header(token):
            raise ValueError("a token that fits into no header")
        seconds = float(life) if isinstance(life, int | float) else TOKEN_LIFE
        self._ends = time.monotonic() + seconds - self._skew
        self._token = token
        return token


class _Signed(Auth):
    """An HMAC of each request, in a header."""

    requires_request_body = True

    def __init__(self, account: Account, clock: Callable[[], float]) -> None:
        self._rule = account.declared.auth
        self._key = signatures.derived(self._rule.key, account.secret) or b""
        self._clock = clock

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        rule, url = self._rule, request.url
        at = str(int(self._clock()))
        nonce = token_hex(16)
        pieces = {
            "timestamp": at.encode(),
            "nonce": nonce.encode(),
            "method": request.method.encode(),
            "path": url.raw_path,
            "url": str(url).encode(),
            **signatures.body_pieces(request.content),
        }
        message = signatures.canonical(rule.message, pieces) or b""
        mac = hmac.digest(self._key, message, rule.algorithm)
        request.headers[rule.name] = rule.prefix + signatures.encoded(rule.encoding, mac)
        for header, value in ((rule.timestamp_header, at), (rule.nonce_header, nonce)):
            if header:
                request.headers[header] = value
        yield request


def _flow(account: Account, clock: Callable[[], float]) -> Auth | None:
    rule = account.declared.auth
    if rule.kind is Scheme.HMAC:
        return _Signed(account, clock)
    return _Token(account) if rule.kind is Scheme.OAUTH2 else None


def _account(settings: GenericSettings) -> Account:
    return Account(settings.definition, settings.values, settings.secrets, settings.base_url)


def _verify_token(account: Account) -> bytes:
    shape = account.declared.callback
    rule = shape.handshake if shape is not None else None
    return account.secrets[rule.secret].encode() if rule is not None else b""


def _said(outgoing: Outgoing, names: frozenset[str]) -> dict[str, object]:
    """What a message says of itself. `names`: what is wanted, since a country costs a look-up."""
    return {
        "attempt_id": outgoing.attempt_id,
        "callback_url": outgoing.callback_url,
        "channel": outgoing.channel,
        "code": outgoing.code,
        "country": _country(outgoing.recipient) if "country" in names else None,
        "locale": outgoing.locale,
        "sender": outgoing.sender,
        "subject": outgoing.subject,
        "template": outgoing.template,
        "text": outgoing.text,
        "to": outgoing.recipient,
        "to_digits": outgoing.recipient.removeprefix("+"),
        "ttl_s": outgoing.validity,
    }


def _country(number: str) -> str | None:
    try:
        return recipient.parse(number).region
    except InvalidInput:
        return None


def _pause(rule: ErrorRule, response: Response, answer: object) -> float | None:
    told = paths.text(paths.first(rule.retry_after, answer, answer))
    written = told if isinstance(told, str) else response.headers.get(rule.retry_header)
    return vendor.retry_after(written)


def _mistakes(settings: GenericSettings) -> list[str]:
    declared, given = settings.definition, settings.callback_secret
    missing = [name for name, default in declared.values.items() if not default]
    names = sorted(declared.secrets)
    checks = [
        (
            set(settings.values) <= set(declared.values),
            f"values: {declared.name} knows {', '.join(sorted(declared.values)) or 'none'}",
        ),
        (
            all(settings.values.get(name) for name in missing),
            f"values: {declared.name} needs {', '.join(missing)}",
        ),
        (
            sorted(settings.secrets) == names and all(settings.secrets.values()),
            f"secrets: {declared.name} needs exactly {', '.join(names) or 'none'}, not empty",
        ),
        (
            isinstance(given, tuple)
            and not any(one.unusable(secret) for one in declared.signatures for secret in given),
            "callback_secret: secrets that are not empty and fit the signature are expected",
        ),
        (settings.avoid > 0, "avoid: more than 0 seconds are expected"),
    ]
    common = settings.mistakes(declared.name, declared.channels)
    found = [*common, *(message for fine, message in checks if not fine)]
    return found or [*_unwritable(settings)]


def _unwritable(settings: GenericSettings) -> list[str]:
    """What cannot be written into a request; asked once names and values are known to be there."""
    account = _account(settings)
    rule, said = account.declared.auth, {**account.constants, "attempt_id": "x"}
    headers = [one.line(said) for one in account.declared.send.headers.values()]
    checks = [
        (
            vendor.is_address(account.base),
            "base_url: an http(s) address without a query is expected",
        ),
        (
            all(vendor.fits_header(value) for value in account.credentials().values()),
            "secrets: plain characters are expected",
        ),
        (
            all(vendor.fits_header(value) for value in headers),
            "values: plain characters are expected where they go into a header",
        ),
        (
            rule.kind is not Scheme.HMAC or signatures.derived(rule.key, account.secret),
            "secrets: the signing key is not base64",
        ),
    ]
    return [message for fine, message in checks if not fine]
