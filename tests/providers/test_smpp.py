"""SMPP: messages as submit_sm, answers by status, receipts in all the shapes centres give them.

The runner thinks of HTTP. What it asks is asked here of PDUs: an "answer" is a list of PDUs whose
status stands where the HTTP status does, a callback is a deliver_sm, and the proof is not a secret
but the way it came.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import pytest
import smpp34
from hypothesis import given
from hypothesis import strategies as st
from providers.cases import (
    CALLBACK,
    OTHER_SECRET,
    OUTGOING,
    SEARCH,
    SECRET,
    UNKNOWN_WORD,
    ProviderCases,
    ReceiptCase,
    ResponseCase,
    SendCase,
)

from gateway.domain import smpp
from gateway.domain.delivery import State
from gateway.domain.smpp import Address, Command, Message, Pdu, ShortMessage, Status, Tag
from gateway.ports import (
    Accepted,
    Callback,
    Malformed,
    Outcome,
    Receipt,
    RefusalKind,
    Refused,
    Secret,
    Unknown,
)
from gateway.providers.smpp import LONG_TEXTS, Smpp

PLAIN = Message(
    source=Address(),
    destination=Address("33600000000", 1, 1),
    validity_period="000000000200000R",
    registered_delivery=1,
    short_message=b"123456 is your code",
)
TEXT = "id:{id} sub:001 dlvrd:001 submit date:2611211000 done date:2611211001 stat:{stat} err:000"
DELIVERED = Receipt(
    word="DELIVRD",
    state=State.DELIVERED,
    reference="m_1",
    recipient="33600000000",
    provider_time="2611211001",
)
BARE = replace(DELIVERED, provider_time=None)  # of optional parameters alone, without a date
LONG = "123456 is your code. " * 10
CYRILLIC = "код 123456 " * 7


def deliver(
    text: bytes | str = b"", *tlvs: tuple[int, bytes], command: int = 5, **changes: Any
) -> bytes:
    """A deliver_sm: a receipt, unless esm_class says otherwise."""
    fields = {
        "source": Address("33600000000", 1, 1),
        "destination": Address("ACME", 5, 0),
        "esm_class": 0x04,
        "short_message": text if isinstance(text, bytes) else text.encode("latin-1"),
        "tlvs": tlvs,
    }
    return Pdu(command, 0, 7, Message(**{**fields, **changes}).write()).write()


def said(stat: str = "DELIVRD", reference: str = "m_1") -> str:
    return TEXT.format(id=reference, stat=stat) + " Text:123456 is your"


def named(reference: str = "m_1\0") -> tuple[int, bytes]:
    return Tag.RECEIPTED_MESSAGE_ID, reference.encode()


def state(number: int) -> tuple[int, bytes]:
    return Tag.MESSAGE_STATE, bytes([number])


def answer(status: int, body: bytes = b"", command: int = Command.SUBMIT_SM_RESP) -> Pdu:
    return Pdu(command, status, 1, body)


TAKEN = answer(0, b"m_1\0")


def of_session(callback: Callback) -> Callback:
    """As the wiring makes it."""
    return replace(callback, method="SMPP", url="", key=None, headers={}, query={})


def refused(status: int, reason: str, kind: RefusalKind, avoid: float | None = None) -> Refused:
    return Refused(reason, kind, error=smpp.status_name(status), avoid=avoid)


TEMPORARY, THROTTLED = RefusalKind.TEMPORARY, RefusalKind.THROTTLED
ACCOUNT, PERMANENT = RefusalKind.ACCOUNT, RefusalKind.PERMANENT

# The sheet's table; those it does not name are the account's settings, ours or theirs.
KINDS: Sequence[tuple[int, str, RefusalKind]] = (
    (0x01, "bad_request", ACCOUNT),
    (0x02, "bad_request", ACCOUNT),
    (0x03, "bad_request", ACCOUNT),
    (0x04, "not_bound", TEMPORARY),
    (0x05, "not_bound", TEMPORARY),
    (0x06, "bad_request", ACCOUNT),
    (0x08, "server_error", TEMPORARY),
    (0x0A, "bad_sender", PERMANENT),
    (0x0D, "unauthorized", ACCOUNT),
    (0x0E, "unauthorized", ACCOUNT),
    (0x0F, "unauthorized", ACCOUNT),
    (0x14, "queue_full", TEMPORARY),
    (0x15, "bad_request", ACCOUNT),
    (0x43, "bad_request", ACCOUNT),
    (0x45, "rejected", PERMANENT),
    (0x48, "bad_request", ACCOUNT),
    (0x49, "bad_request", ACCOUNT),
    (0x50, "bad_request", ACCOUNT),
    (0x51, "bad_request", ACCOUNT),
    (0x53, "unauthorized", ACCOUNT),
    (0x58, "throttled", THROTTLED),
    (0x61, "bad_request", ACCOUNT),
    (0x62, "bad_request", ACCOUNT),
    (0x64, "server_error", TEMPORARY),
    (0x65, "rejected", PERMANENT),
    (0x66, "rejected", PERMANENT),
    (0xC0, "bad_request", ACCOUNT),
    (0xC1, "bad_request", ACCOUNT),
    (0xC2, "bad_request", ACCOUNT),
    (0xC3, "bad_request", ACCOUNT),
    (0xC4, "bad_request", ACCOUNT),
    (0xFE, "not_delivered", PERMANENT),
    (0xFF, "server_error", TEMPORARY),
    (0x400, "vendor_refused", TEMPORARY),
    (0x4FF, "vendor_refused", TEMPORARY),
)


SENDS: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any], Sequence[Message]]] = [
    ("plain", {}, {}, [PLAIN]),
    (
        "a name as sender",
        {"sender": "ACME"},
        {},
        [replace(PLAIN, source=Address("ACME", 5, 0))],
    ),
    (
        "a number as sender",
        {"sender": "+33600000001"},
        {},
        [replace(PLAIN, source=Address("33600000001", 1, 1))],
    ),
    (
        "a number without its plus",
        {"sender": "33600000001"},
        {},
        [replace(PLAIN, source=Address("33600000001", 1, 1))],
    ),
    (
        "a short code",
        {"sender": "38123"},
        {},
        [replace(PLAIN, source=Address("38123", 3, 0))],
    ),
    (
        "a short code, as this operator wants it",
        {"sender": "38123"},
        {"sender_ton": 6, "sender_npi": 9},
        [replace(PLAIN, source=Address("38123", 6, 9))],
    ),
    (
        "no sender, as this operator wants it",
        {},
        {"sender_ton": 0, "sender_npi": 1},
        [replace(PLAIN, source=Address("", 0, 1))],
    ),
    (
        "a service type",
        {},
        {"service_type": "OTP"},
        [replace(PLAIN, service_type="OTP")],
    ),
    (
        "a validity of an hour, a minute and a second",
        {"validity": 3661},
        {},
        [replace(PLAIN, validity_period="000000010101000R")],
    ),
    (
        "typography that would cost the alphabet",
        {"text": "123456 \u2013 l\u2019été\u00a0!"},
        {},
        [replace(PLAIN, short_message=b"123456 - l'\x05t\x05 !")],
    ),
    (
        "signs that move",
        {"text": "@$_€"},
        {},
        [replace(PLAIN, short_message=b"\x00\x02\x11\x1be")],
    ),
    (
        "what only UCS2 has",
        {"text": "код 123456"},
        {},
        [replace(PLAIN, data_coding=8, short_message="код 123456".encode("utf-16-be"))],
    ),
    (
        "ASCII",
        {"text": "@$_"},
        {"alphabet": "ascii"},
        [replace(PLAIN, data_coding=1, short_message=b"@$_")],
    ),
    (
        "Latin-1",
        {"text": "ç@"},
        {"alphabet": "latin1"},
        [replace(PLAIN, data_coding=3, short_message=b"\xe7@")],
    ),
    (
        "Latin-1 where it is the default",
        {"text": "ç@"},
        {"alphabet": "latin1_default"},
        [replace(PLAIN, short_message=b"\xe7@")],
    ),
    (
        "UCS2 always",
        {"text": "1"},
        {"alphabet": "ucs2"},
        [replace(PLAIN, data_coding=8, short_message=b"\x001")],
    ),
    (
        "as long as one message can be",
        {"text": "a" * 160},
        {},
        [replace(PLAIN, short_message=b"a" * 160)],
    ),
    (
        "two parts, joined by a header; 0xf3 by the attempt's id",
        {"text": "a" * 161},
        {},
        [
            replace(
                PLAIN,
                esm_class=0x40,
                short_message=b"\x05\x00\x03\xf3\x02" + bytes([at]) + b"a" * length,
            )
            for at, length in ((1, 153), (2, 8))
        ],
    ),
    (
        "two parts, joined by optional parameters",
        {"text": "a" * 161},
        {"long_text": "sar"},
        [
            replace(
                PLAIN,
                short_message=b"a" * length,
                tlvs=((0x20C, b"\x00\xf3"), (0x20E, b"\x02"), (0x20F, bytes([at]))),
            )
            for at, length in ((1, 153), (2, 8))
        ],
    ),
    (
        "one message with a payload",
        {"text": CYRILLIC},
        {"long_text": "payload"},
        [
            replace(
                PLAIN,
                data_coding=8,
                short_message=b"",
                tlvs=((0x424, CYRILLIC.encode("utf-16-be")),),
            )
        ],
    ),
    ("too long", {"text": "a" * 161}, {"long_text": "refuse"}, []),
    ("too long in UCS2", {"text": CYRILLIC}, {"long_text": "refuse"}, []),
    ("more parts than there may be", {"text": "a" * (8 * 153 + 1)}, {}, []),
    ("too long for a payload", {"text": "a" * (8 * 153 + 1)}, {"long_text": "payload"}, []),
    *(("short enough", {}, {"long_text": way}, [PLAIN]) for way in LONG_TEXTS),
]

RECEIPTS: Sequence[tuple[str, bytes, Sequence[Receipt | Malformed]]] = [
    ("text and parameters", deliver(said(), named(), state(2)), [DELIVERED]),
    ("text only", deliver(said()), [DELIVERED]),
    ("parameters only", deliver(b"", named(), state(2)), [BARE]),
    ("an id without its NUL", deliver(b"", named("m_1"), state(2)), [BARE]),
    ("parameters in another order", deliver(b"", state(2), named()), [BARE]),
    (
        "parameters of others between them",
        deliver(b"", (0x1403, b"?"), named(), (0x0423, b"\3\0\1"), state(2)),
        [BARE],
    ),
    (
        "where they disagree, the parameters are right",
        deliver(said("UNDELIV", "m_2"), named(), state(2)),
        [DELIVERED],
    ),
    ("an empty parameter and a text", deliver(said(), named(""), state(2)), [DELIVERED]),
    ("a NUL for a parameter and a text", deliver(said(), named("\0")), [DELIVERED]),
    (
        "a state of no length and a text",
        deliver(said(), named(), (0x427, b"")),
        [DELIVERED],
    ),
    ("a state unheard of and a text", deliver(said(), named(), state(99)), [DELIVERED]),
    (
        "a state unheard of",
        deliver(b"", named(), state(99)),
        [replace(BARE, word="message_state 99", state=None)],
    ),
    (
        "the text as a parameter",
        deliver(b"", (Tag.MESSAGE_PAYLOAD, said().encode())),
        [DELIVERED],
    ),
    (
        "an intermediate notification",
        deliver(said("ENROUTE"), esm_class=0x20),
        [replace(DELIVERED, word="ENROUTE", state=State.ACK)],
    ),
    (
        "a receipt with the reply path set",
        deliver(said(), esm_class=0x84),
        [DELIVERED],
    ),
    ("a receipt that does not say so", deliver(said(), named(), esm_class=0), [DELIVERED]),
    ("somebody writes to us", deliver(b"STOP", esm_class=0), []),
    ("somebody knows how receipts look", deliver(said(), esm_class=0), []),
    ("a reply by hand", deliver(said(), esm_class=0x10), []),
    (
        "lower case",
        deliver(said("delivrd")),
        [replace(DELIVERED, word="delivrd")],
    ),
    ("keys in upper case", deliver(said().upper().replace("M_1", "m_1")), [DELIVERED]),
    ("text: in lower case", deliver(said().replace("Text:", "text:")), [DELIVERED]),
    ("no text:", deliver(TEXT.format(id="m_1", stat="DELIVRD")), [DELIVERED]),
    (
        "seconds in the dates",
        deliver(said().replace("2611211001", "261121100159")),
        [replace(DELIVERED, provider_time="261121100159")],
    ),
    (
        "years of four digits",
        deliver(said().replace("2611211001", "202611211001")),
        [replace(DELIVERED, provider_time="202611211001")],
    ),
    (
        "without sub and dlvrd",
        deliver(said().replace("sub:001 dlvrd:001 ", "")),
        [DELIVERED],
    ),
    ("an error of hex digits", deliver(said().replace("err:000", "err:0BF")), [DELIVERED]),
    ("only what is needed", deliver("id:m_1 stat:DELIVRD"), [BARE]),
    ("the other way round", deliver("stat:DELIVRD id:m_1"), [BARE]),
    ("spaces after colons", deliver("id: m_1 stat: DELIVRD"), [BARE]),
    (
        "letters and dashes in the id",
        deliver(said(reference="7b2e-4C1d_x.9")),
        [replace(DELIVERED, reference="7b2e-4C1d_x.9")],
    ),
    (
        "UCS2, all of it",
        deliver(said().encode("utf-16-be"), data_coding=8),
        [DELIVERED],
    ),
    ("UCS2 that is none", deliver(said(), data_coding=8), [DELIVERED]),
    (
        "UCS2 after text:",
        deliver(said().encode() + "код".encode("utf-16-be")),
        [DELIVERED],
    ),
    (
        "the words of the message are not the centre's",
        deliver("id:m_1 stat:UNDELIV Text: stat:DELIVRD id:m_2 done date:9"),
        [replace(BARE, word="UNDELIV", state=State.FAILED, reason="not_delivered")],
    ),
    (
        "words that only look like keys",
        deliver("void:x restat:y id:m_1 stat:DELIVRD"),
        [BARE],
    ),
    (
        "no address",
        deliver(said(), source=Address()),
        [replace(DELIVERED, recipient=None)],
    ),
    (
        "no id",
        deliver("stat:DELIVRD"),
        [Malformed("the message id is missing or unusable", b"")],
    ),
    ("no state", deliver("id:m_1"), [Malformed("the state is missing or unusable", b"")]),
    ("nothing", deliver(), [Malformed("the message id is missing or unusable", b"")]),
    (
        "an id that nobody could store",
        deliver(b"", named("m\x07"), state(2)),
        [Malformed("the message id is missing or unusable", b"")],
    ),
    (
        "a data_sm",
        Pdu(
            Command.DATA_SM,
            0,
            7,
            b"\0\1\x0133600000000\0\5\0ACME\0\x04\0\0" + smpp.write_tlvs((named(), state(2))),
        ).write(),
        [BARE],
    ),
    ("another PDU", deliver(said(), command=4), [Malformed("not a deliver_sm", b"")]),
    ("no PDU", b"hello", [Malformed("the PDU is not as long as it says", b"")]),
    (
        "no body",
        Pdu(5, 0, 1).write(),
        [Malformed("a string is too long or has no end", b"")],
    ),
    (
        "a parameter longer than the PDU",
        Pdu(5, 0, 1, Message(esm_class=4).write() + b"\x00\x1e\x00\x05a").write(),
        [Malformed("the body ends too early", b"")],
    ),
    *(
        (
            f"message_state {number}",
            deliver(b"", named(), state(number)),
            [
                replace(
                    BARE,
                    word=word,
                    state=Smpp.statuses[word].state,
                    reason=Smpp.statuses[word].reason,
                )
            ],
        )
        for number, word in Smpp.message_states.items()
    ),
]


class TestSmpp(ProviderCases):
    provider = "smpp"
    secrets_field = "password"
    statuses = Smpp.statuses
    unpromised = frozenset({State.ACK})  # intermediate states need not be told, nor are asked for
    speaks_json = False
    # None: neither parameter nor text names the message.
    unusable: ClassVar[Sequence[object]] = (None, "", " ", "m\x07", "\x80")
    opaque: ClassVar[Sequence[str]] = ("007", "AbC", "abc", "m-1", "0x1F", "x" * 64)
    settings: ClassVar[Mapping[str, Any]] = {
        "channel": "sms",
        "host": "smsc.example",
        "port": 2775,
        "system_id": "acme",
        "tls": False,
    }

    sends: ClassVar[Sequence[SendCase]] = [
        SendCase(label=label, url="", headers={}, body=body, change=change, settings=settings)
        for label, change, settings, body in SENDS
    ]

    responses: ClassVar[Sequence[ResponseCase]] = [
        ResponseCase(label=label, status=status, body=body, expected=expected)
        for label, status, body, expected in (
            ("taken", 0, b"m_1\0", Accepted("m_1")),
            ("taken, an optional parameter after it", 0, b"m_1\0\x14\x00\0\1x", Accepted("m_1")),
            ("taken without a body", 0, b"", Unknown("no_message_id")),
            ("taken with an empty id", 0, b"\0", Unknown("no_message_id")),
            ("taken with an id without end", 0, b"m_1", Unknown("no_message_id")),
            ("taken with an id that is too long", 0, b"x" * 65 + b"\0", Unknown("no_message_id")),
            ("taken with an id that nobody could store", 0, b"\x07\0", Unknown("no_message_id")),
            (
                "no such number",
                0x0B,
                b"",
                refused(0x0B, "bad_destination", PERMANENT, 86_400.0),
            ),
            ("a reason and an id all the same", 8, b"m_1\0", refused(8, "server_error", TEMPORARY)),
            ("a reserved status", 0x09, b"", Unknown("odd_status", "0x09")),
            ("a status from nowhere", 0x500, b"", Unknown("odd_status", "0x500")),
            ("the largest status", 0xFFFFFFFF, b"", Unknown("odd_status", "0xFFFFFFFF")),
        )
    ] + [
        ResponseCase(
            label=smpp.status_name(status),
            status=status,
            expected=refused(status, reason, kind),
        )
        for status, reason, kind in KINDS
    ]

    receipts: ClassVar[Sequence[ReceiptCase]] = [
        ReceiptCase(label=label, body=body, expected=expected) for label, body, expected in RECEIPTS
    ]

    def configure(self, *secrets: Secret, **changes: Any) -> Any:
        """A session has one password: the last of the secrets."""
        password = Secret(secrets[-1][-8:]) if secrets else Secret("password")
        fields = {"name": "route", "account": "account", "password": password}
        return Smpp.Settings(**{**fields, **self.settings, **changes})

    def sign(self, callback: Callback, secret: str) -> Callback:
        return of_session(callback)

    def receipt(self, word: str) -> bytes:
        return deliver(said(word))

    def refer(self, body: bytes, reference: object) -> bytes:
        if reference is None:
            return deliver("stat:DELIVRD")
        return deliver(b"", (Tag.RECEIPTED_MESSAGE_ID, str(reference).encode("latin-1")), state(2))

    def signature_header(self) -> str:
        return "x-any"

    def outcome(self, provider: Any, status: int, body: bytes) -> Outcome:
        found: Outcome = provider.parse((answer(status, body),))
        return found

    # What the runner asks, asked of PDUs.

    def test_a_message_becomes_this_request(self, send: SendCase) -> None:
        provider = cast("Smpp", self.make(SECRET, **send.settings))
        built = provider.build(replace(OUTGOING, **send.change))

        assert ShortMessage(tuple(cast("list[Message]", send.body))) == built
        assert all(part.write() for part in built.parts)

    def test_an_answer_means_this(self, answer: ResponseCase) -> None:
        body = cast("bytes", answer.body)

        assert answer.expected == self.outcome(self.make(SECRET), answer.status, body)

    def test_a_forged_callback_is_refused(self) -> None:
        """Whatever comes over HTTP has a method of HTTP's and a URL."""
        provider = self.make(SECRET)
        good = self.genuine(SECRET)
        forged = [
            CALLBACK,
            *(replace(good, method=method) for method in ("POST", "GET", "PUT", "smpp", "")),
            *(replace(CALLBACK, method="SMPP", body=good.body, url=url) for url in ("/", "x")),
            replace(good, key=""),
            replace(good, key="key"),
            replace(good, headers={"x-any": ""}),
            replace(good, query={"a": ""}),
        ]

        assert provider.authenticate(good)
        assert not any(map(provider.authenticate, forged))

    def test_two_secrets_hold_during_a_rotation(self) -> None:
        """There is one password, and no callback carries it: the session stands or does not."""
        assert self.make(SECRET).authenticate(self.genuine(OTHER_SECRET))

    def test_without_a_secret_nobody_gets_in(self) -> None:
        with pytest.raises(ValueError, match="password"):
            self.make(Secret(""))

    def test_secrets_codes_and_numbers_are_not_shown(self) -> None:
        settings = self.configure(Secret("hunter22"))
        provider = Smpp(settings)
        private = ["hunter22", OUTGOING.code, OUTGOING.recipient, "600000000"]
        told = " ".join(private).encode() + b"\0"
        outcomes = [self.outcome(provider, status, told) for status in range(1, 0x500)]
        spoiled = provider.receipts(of_session(replace(CALLBACK, body=b"123456 +33600000000")))
        why = [found.why for found in spoiled if isinstance(found, Malformed)]
        shown = repr([settings, provider, provider.connection, provider.build(OUTGOING)])
        shown += repr([outcomes, why])

        assert [] == [fact for fact in private if fact in shown]
        assert why

    def test_no_other_status_means_accepted(self) -> None:
        provider = self.make(SECRET)
        for status in (*range(0x600), 0xFFFFFFFF):
            accepted = isinstance(self.outcome(provider, status, b"m_1\0"), Accepted)

            assert (status == 0) == accepted

    def test_no_answer_makes_it_stumble(self) -> None:
        provider = cast("Smpp", self.make(SECRET))
        number = st.integers(0, 0xFFFFFFFF)
        pdus = st.builds(
            Pdu,
            st.sampled_from(Command) | number,
            st.sampled_from(Status) | number,
            number,
            st.binary(max_size=80) | st.just(b"m_1\0"),
        )

        @SEARCH
        @given(answers=st.lists(pdus, max_size=3))
        def search(answers: list[Pdu]) -> None:
            outcome = provider.parse(tuple(answers))

            if isinstance(outcome, Accepted):
                last = answers[-1]
                assert (Command.SUBMIT_SM_RESP, 0) == (last.command, last.status)

        search()

    def test_no_callback_makes_it_stumble(self) -> None:
        provider = self.make(SECRET)
        samples = [cast("bytes", case.body) for case in self.receipts]
        cut = st.builds(lambda sample, end: sample[:end], st.sampled_from(samples), st.integers(0))
        spoiled = st.builds(
            lambda sample, at, octet: sample[:at] + bytes([octet]) + sample[at + 1 :],
            st.sampled_from(samples),
            st.integers(16, 200),
            st.integers(0, 255),
        )
        bodies = st.binary(max_size=250).map(lambda body: Pdu(5, 0, 1, body).write())
        texts = st.text(max_size=60).map(
            lambda text: deliver(f"id:m_1 stat:{text}".encode("utf-8", "ignore")[:254])
        )

        @SEARCH
        @given(body=st.binary() | cut | spoiled | bodies | texts)
        def search(body: bytes) -> None:
            for found in provider.receipts(of_session(replace(CALLBACK, body=body))):
                assert isinstance(found, Receipt | Malformed)
                assert not isinstance(found, Receipt) or found.reference

        search()


def smpp_route(**changes: Any) -> Smpp:
    fields = {"name": "route", "account": "account", "password": Secret("password")}
    return Smpp(Smpp.Settings(**{**fields, **TestSmpp.settings, **changes}))


def parsed(*answers: Pdu, **changes: Any) -> Outcome:
    return smpp_route(**changes).parse(answers)


def heard(provider: Smpp, body: bytes) -> Receipt | Malformed:
    (found,) = provider.receipts(of_session(replace(CALLBACK, body=body)))
    return found


def test_an_unknown_word_of_the_text_is_recorded() -> None:
    assert replace(BARE, word=UNKNOWN_WORD, state=None) == replace(
        heard(smpp_route(), deliver(f"id:m_1 stat:{UNKNOWN_WORD}")), raw=b""
    )


def test_the_receipt_is_kept_whole() -> None:
    body = deliver(said())

    assert body == heard(smpp_route(), body).raw


@pytest.mark.parametrize(
    ("setting", "submitted", "receipted", "reference"),
    [
        ("same", "1a2b01", "1a2b01", "1a2b01"),
        ("same", "007", "007", "007"),
        ("receipt_decimal", "1a2b01", "1714945", "1a2b01"),
        ("receipt_decimal", "1A2B01", "1714945", "1a2b01"),
        ("receipt_decimal", "001a2b01", "0001714945", "1a2b01"),
        ("receipt_hex", "1714945", "1a2b01", "1714945"),
        ("receipt_hex", "0001714945", "001A2B01", "1714945"),
        ("receipt_decimal", "0", "0", "0"),
        ("receipt_decimal", "ffffffffffffffff", "18446744073709551615", "ffffffffffffffff"),
        ("receipt_decimal", "m-1", "m-1", "m-1"),  # no number: opaque
        ("receipt_hex", "m-1", "m-1", "m-1"),
        ("receipt_hex", "1_0", "1_0", "1_0"),  # int() would take it
        ("receipt_hex", "\uff11".encode().decode("latin-1"), "x", None),
    ],
)
def test_an_id_in_two_spellings_is_one_id(
    setting: str, submitted: str, receipted: str, reference: str | None
) -> None:
    provider = smpp_route(message_ids=setting)
    outcome = provider.parse((answer(0, submitted.encode("latin-1") + b"\0"),))
    by_text = heard(provider, deliver(f"id:{receipted} stat:DELIVRD"))
    by_parameter = heard(provider, deliver(b"", named(receipted), state(2)))

    if reference is None:
        assert not isinstance(outcome, Accepted)
        return
    assert Accepted(reference) == outcome
    assert isinstance(by_text, Receipt)
    assert isinstance(by_parameter, Receipt)
    assert reference == by_text.reference == by_parameter.reference


def test_different_ids_stay_different() -> None:
    """F13: without the setting nothing is compared by value or by case."""
    ids = ["007", "07", "7", "AbC", "abc", "0x7"]
    references = [parsed(answer(0, one.encode() + b"\0")) for one in ids]

    assert [Accepted(one) for one in ids] == references


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((), Refused("text_too_long", PERMANENT)),
        ((TAKEN, answer(0, b"m_2\0")), Accepted("m_1 +1", parts=("m_1", "m_2"))),
        ((TAKEN, answer(0, b"m_1\0")), Accepted("m_1")),  # one id, one receipt
        ((TAKEN, answer(0)), Unknown("no_message_id")),
        ((answer(0), TAKEN), Unknown("no_message_id")),
        (
            (answer(0, b"", Command.GENERIC_NACK), TAKEN),
            Unknown("odd_answer", "ESME_ROK (0x00)"),
        ),
        ((TAKEN, answer(0x58)), Unknown("partly_sent", "ESME_RTHROTTLED (0x58)")),
        ((TAKEN, answer(0x0B)), Unknown("partly_sent", "ESME_RINVDSTADR (0x0B)")),
        ((answer(0x58),), refused(0x58, "throttled", THROTTLED)),
        ((answer(0x03, b"", Command.GENERIC_NACK),), refused(3, "bad_request", ACCOUNT)),
        ((answer(0, b"", Command.GENERIC_NACK),), Unknown("odd_answer", "ESME_ROK (0x00)")),
        ((answer(0, b"m_1\0", Command.DELIVER_SM_RESP),), Unknown("odd_answer", "ESME_ROK (0x00)")),
        (
            (answer(8, b"", Command.ENQUIRE_LINK_RESP),),
            Unknown("odd_answer", "ESME_RSYSERR (0x08)"),
        ),
    ],
)
def test_what_answers_mean_together(answers: tuple[Pdu, ...], expected: Outcome) -> None:
    assert expected == parsed(*answers)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x0E, refused(0x0E, "unauthorized", ACCOUNT)),
        (0x0D, refused(0x0D, "unauthorized", ACCOUNT)),
        (0x0F, refused(0x0F, "unauthorized", ACCOUNT)),
        (0x05, refused(0x05, "not_bound", TEMPORARY)),
        (0x09, refused(0x09, "not_bound", TEMPORARY)),
        (0x58, refused(0x58, "throttled", THROTTLED)),
    ],
)
def test_who_is_not_let_in_has_sent_nothing(status: int, expected: Outcome) -> None:
    assert expected == parsed(answer(status, b"", Command.BIND_TRANSCEIVER_RESP))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(kind.value, refused(0x401, "vendor_refused", kind)) for kind in RefusalKind],
)
def test_a_centre_has_statuses_of_its_own(kind: str, expected: Outcome) -> None:
    assert expected == parsed(answer(0x401), vendor_statuses={"0x0401": kind})


def test_how_long_a_wrong_number_is_left_alone() -> None:
    assert refused(0x0B, "bad_destination", PERMANENT, 60.0) == parsed(answer(0x0B), avoid=60.0)


def test_a_repeated_message_is_built_the_same() -> None:
    long = replace(OUTGOING, text=LONG)
    provider = smpp_route()

    assert provider.build(long) == provider.build(long)
    assert provider.build(long) != provider.build(replace(long, attempt_id="0193-b2"))


def test_the_other_implementation_reads_what_is_built() -> None:
    (part,) = smpp_route().build(replace(OUTGOING, sender="ACME")).parts
    found = smpp34.decode(Pdu(Command.SUBMIT_SM, 0, 1, part.write()).write())

    assert isinstance(found, smpp34.SubmitSm)
    assert ("ACME", 5, 0) == (found.source_addr, found.source_addr_ton, found.source_addr_npi)
    assert ("33600000000", 1, 1) == (
        found.destination_addr,
        found.dest_addr_ton,
        found.dest_addr_npi,
    )
    assert b"123456 is your code" == found.short_message
    assert ("000000000200000R", 1, 0) == (
        found.validity_period,
        found.registered_delivery,
        found.data_coding,
    )


def test_what_the_other_implementation_writes_is_a_receipt() -> None:
    body = smpp34.DeliverSm(
        "33600000000",
        "ACME",
        said().encode(),
        esm_class=4,
        tlvs=[smpp34.Tlv(Tag.RECEIPTED_MESSAGE_ID, b"m_1\0")],
        sequence_number=3,
    ).encode()

    assert DELIVERED == replace(heard(smpp_route(), body), raw=b"")


def test_routes_of_one_account_share_a_connection() -> None:
    assert smpp_route(name="a").connection == smpp_route(name="b", sender="ACME").connection
    assert smpp_route().connection != smpp_route(system_id="other").connection
    assert 1 == len({smpp_route(name=name).connection for name in "abc"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "voice"}, "channel: smpp has sms, not voice"),
        ({"timeout": 0}, "timeout"),
        ({"host": ""}, "host"),
        ({"host": "http://x/"}, "host"),
        ({"port": 0}, "port"),
        ({"port": 65_536}, "port"),
        ({"system_id": ""}, "system_id"),
        ({"system_id": "x" * 16}, "system_id"),
        ({"password": Secret("123456789")}, "password"),
        ({"password": Secret("é")}, "password"),
        ({"system_type": "x" * 13}, "system_type"),
        ({"service_type": "x" * 6}, "service_type"),
        ({"sender": "twelve chars"}, "sender"),
        ({"sender": "1234567890123456"}, "sender"),
        ({"sender": "AC\u00c9"}, "sender"),
        ({"sender": {"default": "ACME", "FR": ""}}, "sender"),
        ({"sender_ton": 256}, "sender_ton"),
        ({"sender_npi": -1}, "sender_npi"),
        ({"alphabet": "ebcdic"}, "alphabet"),
        ({"long_text": "cut"}, "long_text"),
        ({"message_ids": "hex"}, "message_ids"),
        ({"vendor_statuses": {"401": "account"}}, "vendor_statuses"),
        ({"vendor_statuses": {"0x0": "account"}}, "vendor_statuses"),
        ({"vendor_statuses": {"0x401": "perhaps"}}, "vendor_statuses"),
        ({"window": 0}, "window"),
        ({"enquire_every": 0}, "enquire_every"),
        ({"answer_within": 0}, "answer_within"),
        ({"avoid": -1}, "avoid"),
    ],
)
def test_a_wrong_setting_is_named(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        smpp_route(**changes)
