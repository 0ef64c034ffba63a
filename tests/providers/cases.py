"""The one runner for providers: a test module brings lists of cases, the runner adds what nobody
may forget.

A provider's tests are a subclass of `ProviderCases`, whose name begins with Test. It says how a
callback is made authentic (`sign`), what a receipt looks like (`receipt`) and what an error
looks like (`refusal`), and lists its cases. The runner then also checks: forged, altered and
unsigned callbacks refused, without secrets nothing accepted; unknown words recorded; repeated
callbacks equal; secrets, codes and numbers absent from what is shown; every state promised; and
that nothing that can arrive raises.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.delivery import State
from gateway.ports import (
    Accepted,
    Callback,
    Correlation,
    Malformed,
    Outcome,
    Outgoing,
    Provider,
    Receipt,
    Response,
    Secret,
)
from gateway.providers import PROVIDERS

NOW = datetime(2026, 11, 21, 10, 0, 10, tzinfo=UTC)
SECRET = Secret("callback-secret-of-this-account")
OTHER_SECRET = Secret("callback-secret-of-some-other-account")
UNKNOWN_WORD = "Teleported"

SEARCH = settings(deadline=None, max_examples=40)  # some sixty searches a run, each anew
SOME_STATUSES = (100, 200, 201, 202, 204, 299, 300, 302, 400, 401, 403, 404, 409, 429, 500, 503)
ANY_CHARACTER = st.characters(exclude_categories=())  # lone surrogates among them

OUTGOING = Outgoing(
    attempt_id="0193-a1",
    channel="sms",
    recipient="+33600000000",
    text="123456 is your code",
    code="123456",
    sender=None,
    callback_url="https://otp.example.com/otp/delivered/route/token",
    validity=120,
)

CALLBACK = Callback(
    method="POST",
    url="https://otp.example.com/otp/delivered/route/token",
    key=None,
    headers={},
    query={},
    body=b"",
    received_at=NOW,
)


def data(name: str) -> bytes:
    """A sample of the vendor's, as it goes over the wire: tests/providers/data/{name}."""
    return (Path(__file__).parent / "data" / name).read_bytes()


def encoded(body: object) -> bytes:
    return body if isinstance(body, bytes) else orjson.dumps(body)


@dataclass(frozen=True, kw_only=True)
class SendCase:
    """A message and the request it becomes. `change` and `settings` are what differs."""

    label: str
    url: str
    headers: Mapping[str, str]
    body: object
    method: str = "POST"
    change: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ResponseCase:
    """An answer to the send call and what it means. `body` is bytes or to become JSON."""

    label: str
    status: int
    expected: Outcome
    body: object = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReceiptCase:
    """A callback and what it says. `change`: of `CALLBACK`, before it is signed. `raw` of the
    expected is not compared.
    """

    label: str
    body: object
    expected: Sequence[Receipt | Malformed]
    headers: Mapping[str, str] = field(default_factory=dict)
    change: Mapping[str, Any] = field(default_factory=dict)

    @property
    def callback(self) -> Callback:
        """As it comes, not signed yet."""
        changes = {"body": encoded(self.body), "headers": self.headers, **self.change}
        return replace(CALLBACK, **changes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=10,
)


@st.composite
def spoiled(draw: st.DrawFn, sample: object) -> object:
    """The sample with something in it, at whatever depth, replaced by anything."""
    if isinstance(sample, dict) and sample and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(sample)))
        return {**sample, key: draw(spoiled(sample[key]))}
    if isinstance(sample, list) and sample and draw(st.booleans()):
        return [draw(spoiled(sample[0])), *sample]
    return draw(JSON)


def anything(samples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Arbitrary bytes, arbitrary JSON, and what is nearly right."""
    known = st.sampled_from(
        [orjson.loads(sample) for sample in samples if is_json(sample)] or [None]
    )
    content = JSON | known.flatmap(spoiled)
    cut = st.builds(lambda sample, end: sample[:end], st.sampled_from(samples), st.integers(0, 300))
    return st.binary() | cut | content.map(lambda value: json.dumps(value).encode())


def is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


class ProviderCases:
    """What every provider must do. A subclass names the provider and lists its cases."""

    provider: ClassVar[str]  # its name in PROVIDERS
    settings: ClassVar[Mapping[str, Any]]  # of a route, less name, account and callback secrets
    secrets_field: ClassVar[str]  # the setting that holds the callback secrets
    statuses: ClassVar[Mapping[str, Any]]  # its status table: word → something with a state
    unpromised: ClassVar[frozenset[State]] = frozenset()  # in the table, not in `confirms`: say why

    sends: ClassVar[Sequence[SendCase]]
    responses: ClassVar[Sequence[ResponseCase]]
    receipts: ClassVar[Sequence[ReceiptCase]]

    # What differs from one vendor to the next.
    sender: ClassVar[str] = "ACME"  # one its settings allow
    speaks_json: ClassVar[bool] = (
        True  # its callbacks are JSON; else `receipt` and `refer` know the form
    )
    signs_url: ClassVar[bool] = False  # the signature covers the URL
    signs_body: ClassVar[bool] = True  # the signature covers the body, byte by byte
    shows_cost: ClassVar[bool] = True  # False: another class of the provider's has those cases
    fetches_token: ClassVar[bool] = False  # `auth` is a flow
    unusable: ClassVar[Sequence[object]] = (None, "", " ", [], ["m_1"], 7, "x" * 256, "m\x00")
    opaque: ClassVar[Sequence[str]] = ("007", "AbC", "abc", "m-é", "x" * 255)

    def sign(self, callback: Callback, secret: str) -> Callback:
        """The callback as the vendor sends it: with its key, signature or token."""
        raise NotImplementedError

    def receipt(self, word: str) -> bytes:
        """The body of a callback that says this word of the attempt 0193-a1, reference m_1."""
        raise NotImplementedError

    def refer(self, body: bytes, reference: object) -> bytes:
        """The body with another reference in the place of m_1."""
        return body.replace(b'"m_1"', encoded(reference))

    def delivered(self) -> str:
        """A word of the table that means DELIVERED."""
        return next(w for w, meaning in self.statuses.items() if meaning.state is State.DELIVERED)

    def stale(self, secret: str) -> Callback | None:
        """A callback signed rightly, too long ago; None where signatures carry no time."""
        return None

    def content(self, request: Any) -> object:
        """The body of a request as a value to compare: parsed JSON, or the fields of a form."""
        if "x-www-form-urlencoded" in request.headers.get("content-type", ""):
            return dict(parse_qsl(request.content.decode(), strict_parsing=True))
        return orjson.loads(request.content) if request.content else None

    def refusal(self, message: str) -> bytes:
        """The body of an error that says this message."""
        raise NotImplementedError

    def may_accept(self, status: int, answer: object) -> bool:
        """Whether an answer like this is documented to mean that the message was taken."""
        raise NotImplementedError

    def signature_header(self) -> str:
        """The header of a signed callback that carries the signature."""
        raise NotImplementedError

    def make(self, *secrets: Secret, **changes: Any) -> Provider:
        return PROVIDERS[self.provider](self.configure(*secrets, **changes))

    def configure(self, *secrets: Secret, **changes: Any) -> Any:
        fields = {"name": "route", "account": "account", self.secrets_field: secrets}
        return PROVIDERS[self.provider].Settings(**{**fields, **self.settings, **changes})

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        lists: Mapping[str, Sequence[SendCase | ResponseCase | ReceiptCase]] = {
            "send": self.sends,
            "answer": self.responses,
            "statement": self.receipts,
        }
        for argument, cases in lists.items():
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, cases, ids=[case.label for case in cases])

    # The lists.

    def test_a_message_becomes_this_request(self, send: SendCase) -> None:
        provider = self.make(SECRET, **send.settings)

        request = provider.build(replace(OUTGOING, channel=provider.channel, **send.change))

        assert (send.method, send.url) == (request.method, str(request.url))
        assert send.body == self.content(request)
        assert dict(send.headers) == {
            name: value
            for name, value in request.headers.items()
            if name not in ("host", "content-length")
        }

    def test_an_answer_means_this(self, answer: ResponseCase) -> None:
        response = Response(answer.status, headers=answer.headers, content=encoded(answer.body))

        assert answer.expected == self.make(SECRET).parse(response)

    def test_a_callback_says_this(self, statement: ReceiptCase) -> None:
        provider = self.make(SECRET)
        callback = self.sign(statement.callback, SECRET)

        found = list(provider.receipts(callback))

        assert provider.authenticate(callback)
        assert list(statement.expected) == [replace(one, raw=b"") for one in found]
        assert found == list(provider.receipts(callback))  # repeated, it says the same

    def test_what_is_read_is_among_the_cases(self) -> None:
        """A case shows READ where it is promised."""
        said = [one for case in self.receipts for one in case.expected if isinstance(one, Receipt)]
        shown = any(one.state is State.READ for one in said)

        assert shown or State.READ not in self.make(SECRET).confirms

    def test_what_it_costs_is_among_the_cases(self) -> None:
        """A case shows a price where its sheet names a currency."""
        answers = [case.expected for case in self.responses]
        said = [one for case in self.receipts for one in case.expected]
        told = [one for one in (*answers, *said) if isinstance(one, Accepted | Receipt)]

        priced = self.make(SECRET).sheet.cost and self.shows_cost
        assert any(one.cost for one in told) or not priced

    # What nobody may forget.

    def test_it_is_a_provider(self) -> None:
        provider = self.make(SECRET, name="route", account="account", rate=5.0, sender=self.sender)

        assert isinstance(provider, Provider)
        assert provider.channel in PROVIDERS[self.provider].channels
        assert ("route", "account") == (provider.name, provider.account)
        assert self.sender == provider.sender
        assert (10.0, 64, 5.0) == (provider.timeout, provider.concurrency, provider.rate)
        assert self.fetches_token == (provider.auth() is not None)
        assert provider.handshake(CALLBACK) is None
        assert provider.sheet.vendor
        assert provider.sheet.proof

    def test_a_forged_callback_is_refused(self) -> None:
        provider = self.make(SECRET)
        refused = {
            label: provider.authenticate(callback) for label, callback in self.forgeries(provider)
        }

        assert provider.authenticate(self.genuine(SECRET))
        assert dict.fromkeys(refused, False) == refused

    def test_two_secrets_hold_during_a_rotation(self) -> None:
        provider = self.make(SECRET, OTHER_SECRET)

        assert provider.authenticate(self.genuine(SECRET))
        assert provider.authenticate(self.genuine(OTHER_SECRET))
        assert not provider.authenticate(self.genuine("a third"))

    def test_without_a_secret_nobody_gets_in(self) -> None:
        provider = self.make()
        callbacks = [self.genuine(SECRET), self.genuine(""), CALLBACK]
        callbacks += [callback for _, callback in self.forgeries(provider)]

        assert not any(provider.authenticate(callback) for callback in callbacks)

    def test_an_empty_secret_stops_the_start(self) -> None:
        with pytest.raises(ValueError, match=self.secrets_field):
            self.make(SECRET, Secret(""))

    def test_an_unknown_word_is_recorded_and_moves_nothing(self) -> None:
        callback = self.sign(replace(CALLBACK, body=self.receipt(UNKNOWN_WORD)), SECRET)
        (receipt,) = self.make(SECRET).receipts(callback)

        assert isinstance(receipt, Receipt)
        assert (UNKNOWN_WORD, None) == (receipt.word, receipt.state)
        assert (None, False) == (receipt.reason, receipt.permanent)

    def test_every_state_it_can_report_is_declared(self) -> None:
        provider = self.make(SECRET)
        states = {meaning.state for meaning in self.statuses.values()}

        assert states - {None, State.SENT} - self.unpromised <= provider.confirms
        assert provider.confirms <= states

    def test_every_word_in_its_table_is_understood(self) -> None:
        provider = self.make(SECRET)
        for word, meaning in self.statuses.items():
            (receipt,) = provider.receipts(
                self.sign(replace(CALLBACK, body=self.receipt(word)), SECRET)
            )

            assert isinstance(receipt, Receipt)
            assert (word, meaning.state) == (receipt.word, receipt.state)
            assert (meaning.reason, meaning.permanent) == (receipt.reason, receipt.permanent)
            assert (receipt.state is State.FAILED) == (receipt.reason is not None)

    def test_an_unusable_reference_touches_nothing(self) -> None:
        for reference in self.unusable:
            body = self.refer(self.receipt(self.delivered()), reference)
            (found,) = self.make(SECRET).receipts(self.sign(replace(CALLBACK, body=body), SECRET))

            assert isinstance(found, Malformed), reference
            assert found.raw

    def test_a_reference_is_opaque(self) -> None:
        for reference in self.opaque:
            body = self.refer(self.receipt(self.delivered()), reference)
            (found,) = self.make(SECRET).receipts(self.sign(replace(CALLBACK, body=body), SECRET))

            assert isinstance(found, Receipt), reference
            assert reference == found.reference

    def test_secrets_codes_and_numbers_are_not_shown(self) -> None:
        settings = self.configure(SECRET, OTHER_SECRET)
        provider = PROVIDERS[self.provider](settings)
        hidden = [*getattr(settings, self.secrets_field)]
        hidden += [value for value in self.settings.values() if isinstance(value, Secret)]
        hidden += self.settings.get("secrets", {}).values()
        private = [OUTGOING.code, OUTGOING.recipient, "600000000", "1, 2, 3, 4, 5, 6"]
        private += ["6 00 00 00 00", "(0)6-00-00-00-00"]
        said = self.refusal(" / ".join([*hidden, *private]))
        outcomes = [provider.parse(Response(status, content=said)) for status in range(200, 600)]
        shown = [repr(settings), repr(provider), *map(repr, outcomes)]
        shown += [repr(provider.build(OUTGOING))]

        assert [] == [text for text in shown for secret in hidden if secret in text]
        assert [] == [text for text in shown for fact in private if fact in text]
        assert len(hidden) > 2

    def test_no_other_status_means_accepted(self) -> None:
        provider = self.make(SECRET)
        taken = [case.body for case in self.responses if isinstance(case.expected, Accepted)]
        for at, body in enumerate(taken):
            for status in range(100, 700) if at == 0 else SOME_STATUSES:
                outcome = provider.parse(Response(status, content=encoded(body)))
                answer = orjson.loads(encoded(body))

                assert isinstance(outcome, Accepted) == self.may_accept(status, answer)

    def test_no_answer_makes_it_stumble(self) -> None:
        provider = self.make(SECRET)
        bodies = anything([encoded(case.body) for case in self.responses if case.body])

        @SEARCH
        @given(status=st.integers(100, 699), pause=st.none() | st.text(), body=bodies)
        def search(status: int, pause: str | None, body: bytes) -> None:
            headers = {} if pause is None else {b"retry-after": pause.encode()}
            outcome = provider.parse(Response(status, headers=headers, content=body))

            assert not isinstance(outcome, Accepted) or self.may_accept(status, orjson.loads(body))

        search()

    def test_no_callback_makes_it_stumble(self) -> None:
        provider = self.make(SECRET)
        bodies = anything([encoded(case.body) for case in self.receipts] + [self.receipt("x")])

        @SEARCH
        @given(body=bodies)
        def search(body: bytes) -> None:
            callback = self.sign(replace(CALLBACK, body=body), SECRET)

            assert provider.authenticate(callback)
            for found in provider.receipts(callback):
                assert isinstance(found, Receipt | Malformed)
                assert not isinstance(found, Receipt) or found.reference or found.attempt_id

        search()

    def test_no_credentials_make_it_stumble(self) -> None:
        provider = self.make(SECRET)
        name = self.signature_header() if provider.signed else "x-any"

        @SEARCH
        @given(key=st.none() | st.text(ANY_CHARACTER), value=st.text(ANY_CHARACTER))
        def search(key: str | None, value: str) -> None:
            callback = replace(
                self.genuine(SECRET), key=key, headers={name: value}, attempt_id="0193-a1"
            )

            assert not provider.authenticate(callback)

        search()

    def test_depth_is_no_danger(self) -> None:
        if not self.speaks_json:
            return  # a form has no depth
        provider = self.make(SECRET)
        deep = b"[" * 900 + b"]" * 900
        item = self.receipt(self.delivered()).replace(b'"m_1"', deep)
        for body in (deep, item, b"[" + deep + b"]", b"[" * 100_000, b"[" + item + b"]"):
            found = provider.receipts(self.sign(replace(CALLBACK, body=body), SECRET))

            assert [Malformed] == [type(item) for item in found]

    def genuine(self, secret: str) -> Callback:
        return self.sign(replace(CALLBACK, body=self.receipt(self.delivered())), secret)

    def forgeries(self, provider: Provider) -> Iterator[tuple[str, Callback]]:
        good = self.genuine(SECRET)
        yield "nothing at all", CALLBACK
        yield "other secret", self.genuine(OTHER_SECRET)
        yield "other method", replace(good, method="POST" if good.method == "GET" else "GET")
        if provider.correlates is Correlation.TOKEN:
            yield "token that is not ours", replace(good, attempt_id=None)
        if not provider.signed:
            key = good.key or ""
            for label, other in altered(key):
                yield f"key {label}", replace(good, key=other)
            yield "no key", replace(good, key=None)
            return
        name = self.signature_header()
        value = good.headers[name]
        for label, other in altered(value):
            yield f"signature {label}", replace(good, headers={**good.headers, name: other})
        unsigned = {key: value for key, value in good.headers.items() if key != name}
        yield "no signature", replace(good, headers=unsigned)
        if self.signs_body:
            yield "body altered", replace(good, body=good.body.replace(b"m_1", b"m_2"))
            yield "body extended", replace(good, body=good.body + b"\n")
            yield "body empty", replace(good, body=b"")
        if self.signs_url:
            yield "another URL", replace(good, url=good.url.replace("/route/", "/other/"))
        if (stale := self.stale(SECRET)) is not None:
            yield "stale", stale


def altered(value: str) -> Iterator[tuple[str, str]]:
    yield "empty", ""
    yield "twice", f"{value}\n{value}"
    yield "cut", value[:-1]
    yield "extended", value + "0"
    yield "with space", f" {value}"
    yield "with line end", f"{value}\n"
    yield "upper case", value.upper()
    yield "altered first", chr(ord(value[0]) ^ 1) + value[1:]
    yield "altered last", value[:-1] + chr(ord(value[-1]) ^ 1)
    yield "not ASCII", value + "é"
    yield "not even Unicode", value + "\udce9"
