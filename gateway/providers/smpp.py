"""SMPP 3.4: any short message service centre (SMSC), over a connection that stays open.

Protocol: opensmpp.org/specs/SMPP_v3_4_Issue1_2.pdf. The octets are in gateway/domain/smpp.py, the
connection is in gateway/transports/smpp.py. A message becomes a `ShortMessage`, the answer is the
PDUs that came back, and a callback is a deliver_sm, whole, under the method "SMPP", which nothing
that comes over HTTP can have. It is the centre's because the session is: we opened it.

Receipts name the message by the id that submit_sm_resp brought. Some centres write it in hex in
one place and in decimal in the other; `message_ids` says so, and both are then turned into the
form of the answer, without leading zeros. With "same" it is opaque.

What becomes of a text that needs several short messages, `long_text` says: "split" sends parts
that begin with a header (UDH), "sar" parts that are joined by optional parameters, "payload" one
message with the text in message_payload, and "refuse" nothing (`text_too_long`), nor does any of
them where there would be more than MOST_PARTS. Parts are charged and confirmed one by one: the
message is delivered when all are and failed when one is, and its reference is the first part's id
with the number of those that follow. A repeated receipt of a part that has arrived is parked.

Unconfirmed, each centre's own: the type of number of senders (`sender_ton`, `sender_npi`), what
its data_coding 0 means (`alphabet`), what its statuses from 0x400 mean (`vendor_statuses`; without
a row: refused, may be tried elsewhere), whether validity_period is kept to. That ACCEPTD means
"taken by the next hop" and is not final is how centres use it; the specification says otherwise.

Over 400 lines, as every provider is one file; octets and connection stand elsewhere.
"""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from gateway.domain import gsm, smpp, vendor
from gateway.domain.delivery import State
from gateway.domain.smpp import (
    Address,
    Answers,
    Command,
    Connection,
    Message,
    ShortMessage,
    Status,
    Tag,
)
from gateway.domain.vendor import Meaning
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
    RouteSettings,
    Secret,
    Sender,
    Sheet,
    Unknown,
    Wire,
)

METHOD = "SMPP"  # of a callback that came over the session

MESSAGE_IDS = ("same", "receipt_decimal", "receipt_hex")
LONG_TEXTS = ("split", "sar", "payload", "refuse")
MOST_PARTS = 8  # of one text; what is said of each has to fit into an attempt's words
HEADER = 6  # octets of the header of a part
RECEIPT = frozenset({0x04, 0x20})  # of esm_class & 0x3C: receipt, intermediate notification
UCS2 = 0x08
# What answers a submit_sm; the last one stands for it where it was never sent, for want of a bind.
ANSWERS = frozenset({Command.SUBMIT_SM_RESP, Command.GENERIC_NACK, Command.BIND_TRANSCEIVER_RESP})

# A receipt up to `Text:`, where the words of the message itself begin: they are not the centre's.
_BEFORE_TEXT = re.compile(r"(?is).*?(?=\btext:|\Z)")
_HOST = re.compile(r"[A-Za-z0-9.:_-]+")
_NUMERIC = re.compile(r"\+?[0-9]{1,15}")
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 .&+-]{1,11}")
_STATUS = re.compile(r"0x[0-9A-Fa-f]{1,8}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SmppSettings(RouteSettings):
    host: str
    port: int
    tls: bool = True  # many centres have none: then use a tunnel
    system_id: str
    password: Secret
    system_type: str = ""
    service_type: str = ""
    sender_ton: int | None = None  # None: by what the sender looks like
    sender_npi: int | None = None
    alphabet: str = "gsm"
    long_text: str = "split"
    message_ids: str = "same"
    vendor_statuses: Mapping[str, str] = field(default_factory=dict)  # "0x401" = "account"
    window: int = 10
    enquire_every: float = 30.0
    answer_within: float = 15.0
    avoid: float = 86_400.0


class Smpp:
    Settings = SmppSettings
    wire: ClassVar = Wire.SMPP
    sheet: ClassVar = Sheet(
        vendor="any SMSC, by SMPP 3.4",
        proof="it came over the session that we opened and bound; nothing comes over HTTP",
        setup=("Let the centre know our address, and ask it for its window and rate.",),
    )
    channels = frozenset({"sms"})
    confirms = frozenset({State.DELIVERED, State.FAILED})  # others need not come: not asked for
    correlates = Correlation.REFERENCE
    idempotent = False
    signed = True  # the session is the signature
    validity = True

    def __init__(self, settings: SmppSettings) -> None:
        if wrong := "; ".join(_mistakes(settings)):
            raise ValueError(wrong)
        self.name = settings.name
        self.channel = settings.channel
        self.account = settings.account
        self.sender = settings.sender
        self.timeout = settings.timeout
        self.rate = settings.rate
        self.concurrency = settings.concurrency
        # Routes with equal ones share a session.
        self.connection = _connection(settings)
        self._settings = settings
        self._vendor = {
            int(status, 16): ("vendor_refused", RefusalKind(kind))
            for status, kind in settings.vendor_statuses.items()
        }

    statuses: ClassVar[Mapping[str, Meaning]] = {
        "SCHEDULED": Meaning(State.ACK),  # 5.0: waits for its time
        "ENROUTE": Meaning(State.ACK),  # on its way
        "DELIVRD": Meaning(State.DELIVERED),  # on the handset
        "EXPIRED": Meaning(State.FAILED, "expired"),  # its validity has passed
        "DELETED": Meaning(State.FAILED, "deleted"),  # taken out at the centre
        "UNDELIV": Meaning(State.FAILED, "not_delivered"),  # the network gave it up
        "ACCEPTD": Meaning(State.ACK),  # taken by the next hop
        "UNKNOWN": Meaning(None),  # the centre does not know: keep waiting
        "REJECTD": Meaning(State.FAILED, "rejected"),  # refused on its way
        "SKIPPED": Meaning(State.FAILED, "skipped"),  # 5.0: passed over
    }

    # The optional parameter message_state, as the word that the text has for it.
    message_states: ClassVar[Mapping[int, str]] = {
        0: "SCHEDULED",
        1: "ENROUTE",
        2: "DELIVRD",
        3: "EXPIRED",
        4: "DELETED",
        5: "UNDELIV",
        6: "ACCEPTD",
        7: "UNKNOWN",
        8: "REJECTD",
        9: "SKIPPED",
    }

    # What each means is said beside `Status`. One that blames a field of ours blames a setting.
    errors: ClassVar[Mapping[int, tuple[str, RefusalKind]]] = {
        Status.ESME_RINVMSGLEN: ("bad_request", RefusalKind.ACCOUNT),  # a defect, ours or theirs
        Status.ESME_RINVCMDLEN: ("bad_request", RefusalKind.ACCOUNT),  # the same
        Status.ESME_RINVCMDID: ("bad_request", RefusalKind.ACCOUNT),  # the same
        Status.ESME_RINVBNDSTS: ("not_bound", RefusalKind.TEMPORARY),  # the transport binds again
        Status.ESME_RALYBND: (
            "not_bound",
            RefusalKind.TEMPORARY,
        ),  # an older session is not gone yet
        Status.ESME_RINVPRTFLG: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RINVREGDLVFLG: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RSYSERR: ("server_error", RefusalKind.TEMPORARY),
        Status.ESME_RINVSRCADR: ("bad_sender", RefusalKind.PERMANENT),
        Status.ESME_RINVDSTADR: ("bad_destination", RefusalKind.PERMANENT),
        Status.ESME_RBINDFAIL: ("unauthorized", RefusalKind.ACCOUNT),
        Status.ESME_RINVPASWD: ("unauthorized", RefusalKind.ACCOUNT),
        Status.ESME_RINVSYSID: ("unauthorized", RefusalKind.ACCOUNT),
        Status.ESME_RMSGQFUL: ("queue_full", RefusalKind.TEMPORARY),  # the transport slows down
        Status.ESME_RINVSERTYP: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RINVESMCLASS: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RSUBMITFAIL: ("rejected", RefusalKind.PERMANENT),
        Status.ESME_RINVSRCTON: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RINVSRCNPI: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RINVDSTTON: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RINVDSTNPI: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RINVSYSTYP: ("unauthorized", RefusalKind.ACCOUNT),
        Status.ESME_RINVREPFLAG: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RTHROTTLED: ("throttled", RefusalKind.THROTTLED),  # the transport slows down
        Status.ESME_RINVSCHED: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RINVEXPIRY: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RINVDFTMSGID: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RX_T_APPN: ("server_error", RefusalKind.TEMPORARY),
        Status.ESME_RX_P_APPN: ("rejected", RefusalKind.PERMANENT),
        Status.ESME_RX_R_APPN: ("rejected", RefusalKind.PERMANENT),
        Status.ESME_RINVOPTPARSTREAM: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_ROPTPARNOTALLWD: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RINVPARLEN: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RMISSINGOPTPARAM: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RINVOPTPARAMVAL: ("bad_request", RefusalKind.ACCOUNT),
        Status.ESME_RDELIVERYFAILURE: ("not_delivered", RefusalKind.PERMANENT),
        Status.ESME_RUNKNOWNERR: ("server_error", RefusalKind.TEMPORARY),
    }

    def build(self, outgoing: Outgoing) -> ShortMessage:
        reference = zlib.crc32(outgoing.attempt_id.encode()) & 0xFF  # a repeat builds the same
        parts = gsm.parts(outgoing.text, alphabet=self._settings.alphabet, reference=reference)
        if len(parts) == 1:
            return ShortMessage((self._message(outgoing, parts[0]),))
        if self._settings.long_text == "refuse" or len(parts) > MOST_PARTS:
            return ShortMessage(())
        if self._settings.long_text == "payload":
            whole = gsm.whole(outgoing.text, alphabet=self._settings.alphabet)
            return ShortMessage((_as_payload(self._message(outgoing, whole)),))
        messages = [self._message(outgoing, part) for part in parts]
        if self._settings.long_text == "sar":
            messages = [_with_sar(message) for message in messages]
        return ShortMessage(tuple(messages))

    def auth(self) -> Auth | None:
        return None

    def parse(self, response: Answers) -> Outcome:
        """One answer for each part sent; the transport stops at the first that is refused."""
        if not response:
            return Refused("text_too_long", RefusalKind.PERMANENT)
        *earlier, last = response
        error = smpp.status_name(last.status)
        if last.command not in ANSWERS:
            return Unknown("odd_answer", error)
        if earlier and last.status:
            return Unknown("partly_sent", error)
        if last.status:
            return self._refused(last, error)
        if any(answer.command != Command.SUBMIT_SM_RESP for answer in response):
            return Unknown("odd_answer", error)
        named = [self._named(answer) for answer in response]
        ids = [one for one in dict.fromkeys(named) if one is not None]
        if None in named:
            return Unknown("no_message_id")
        if len(ids) == 1:
            return Accepted(ids[0])
        return Accepted(f"{ids[0]} +{len(ids) - 1}", parts=tuple(ids))

    def _named(self, answer: smpp.Pdu) -> str | None:
        """The id in a submit_sm_resp."""
        try:
            given = vendor.storable(smpp.message_id(answer.body))
        except smpp.SmppError:
            return None
        return self._canonical(given, of_receipt=False) if given is not None else None

    def authenticate(self, callback: Callback) -> bool:
        """Whether the wiring made it of a PDU: anything that HTTP brings has a URL."""
        return callback.method == METHOD and not (
            callback.url or callback.key is not None or callback.headers or callback.query
        )

    def handshake(self, callback: Callback) -> Reply | None:
        return None

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        raw = callback.body
        try:
            pdu = smpp.Pdu.read(raw)
            if pdu.command not in (Command.DELIVER_SM, Command.DATA_SM):
                return [Malformed("not a deliver_sm", raw)]
            data = pdu.command == Command.DATA_SM
            message = Message.read_data(pdu.body) if data else Message.read(pdu.body)
        except smpp.SmppError as error:
            return [Malformed(str(error), raw)]
        named = message.tlv(Tag.RECEIPTED_MESSAGE_ID)
        if message.esm_class & 0x3C not in RECEIPT and named is None:
            return []  # somebody wrote to us
        return [self._receipt(message, named, raw)]

    def _receipt(self, message: Message, named: bytes | None, raw: bytes) -> Receipt | Malformed:
        """Optional parameters first, then the text, which is a mere convention."""
        said = _said(message)
        reference = vendor.storable(smpp.c_string(named or b"") or _field(said, "id"))
        word = self._word(message.tlv(Tag.MESSAGE_STATE), _field(said, "stat"))
        if reference is None or word is None:
            missing = "the message id" if reference is None else "the state"
            return Malformed(f"{missing} is missing or unusable", raw)
        meaning = self.statuses.get(word.upper(), Meaning(None))
        return Receipt(
            word=word,
            state=meaning.state,
            reference=self._canonical(reference, of_receipt=True),
            reason=meaning.reason,
            permanent=meaning.permanent,
            recipient=vendor.storable(message.source.value),  # the other way round than submitted
            provider_time=vendor.storable(_field(said, "done date")),
            raw=raw,
        )

    def _word(self, state: bytes | None, stat: str | None) -> str | None:
        number = state[0] if state is not None and len(state) == 1 else None
        if number is None:
            return vendor.storable(stat)
        known = self.message_states.get(number)
        return known or vendor.storable(stat) or f"message_state {number}"

    def _canonical(self, given: str, *, of_receipt: bool) -> str:
        """The id as an answer writes it. One that is no number stays as it is."""
        spelling = self._settings.message_ids
        if spelling == "same":
            return given
        hexadecimal = (spelling == "receipt_hex") is of_receipt
        if not re.fullmatch("[0-9A-Fa-f]{1,32}" if hexadecimal else "[0-9]{1,39}", given):
            return given
        number = int(given, 16 if hexadecimal else 10)
        return f"{number:x}" if spelling == "receipt_decimal" else str(number)

    def _message(self, outgoing: Outgoing, part: gsm.Part) -> Message:
        return Message(
            service_type=self._settings.service_type,
            source=self._source(outgoing.sender),
            destination=Address(outgoing.recipient.removeprefix("+"), ton=1, npi=1),
            esm_class=smpp.UDHI if part.headed else 0,
            validity_period=smpp.relative_time(outgoing.validity),
            registered_delivery=1,
            data_coding=part.data_coding,
            short_message=part.octets,
        )

    def _source(self, sender: str | None) -> Address:
        """An international number, a short code or a name; the centre's own where there is none."""
        if sender is None:
            ton, npi = 0, 0
        elif not _NUMERIC.fullmatch(sender):
            ton, npi = 5, 0
        elif sender.startswith("+") or len(sender) > 8:
            ton, npi = 1, 1
        else:
            ton, npi = 3, 0
        own = self._settings
        return Address(
            (sender or "").removeprefix("+"),
            ton if own.sender_ton is None else own.sender_ton,
            npi if own.sender_npi is None else own.sender_npi,
        )

    def _refused(self, answer: smpp.Pdu, error: str) -> Outcome:
        status = answer.status
        found = self._vendor.get(status) or self.errors.get(status)
        if found is None and 0x400 <= status <= 0x4FF:
            found = ("vendor_refused", RefusalKind.TEMPORARY)
        if found is None and answer.command == Command.BIND_TRANSCEIVER_RESP:
            found = ("not_bound", RefusalKind.TEMPORARY)  # so nothing was sent
        if found is None:
            return Unknown("odd_status", error)
        reason, kind = found
        avoid = self._settings.avoid if status == Status.ESME_RINVDSTADR else None
        return Refused(reason, kind, error=error, avoid=avoid)


def _as_payload(message: Message) -> Message:
    """Its text as the optional parameter, which has room for all of it."""
    tlvs = ((Tag.MESSAGE_PAYLOAD, message.short_message),)
    return replace(message, short_message=b"", tlvs=tlvs)


def _with_sar(message: Message) -> Message:
    """A part joined to the others by optional parameters, in place of its header."""
    _, _, _, reference, total, number = message.short_message[:HEADER]
    tlvs = (
        (Tag.SAR_MSG_REF_NUM, bytes([0, reference])),
        (Tag.SAR_TOTAL_SEGMENTS, bytes([total])),
        (Tag.SAR_SEGMENT_SEQNUM, bytes([number])),
    )
    return replace(message, esm_class=0, short_message=message.short_message[HEADER:], tlvs=tlvs)


def _said(message: Message) -> str:
    """The text of a receipt up to the words of the message itself."""
    octets = message.text
    # Some announce UCS2 and write plain characters, none of which has a zero in it.
    wide = message.data_coding == UCS2 and b"\0" in octets
    text = octets.decode("utf-16-be" if wide else "latin-1", errors="replace")
    found = _BEFORE_TEXT.match(text)
    return found[0] if found else ""


def _field(said: str, name: str) -> str | None:
    found = re.search(rf"(?i)(?:^|\s){name}:\s*(\S+)", said)
    return found[1] if found else None


def _connection(settings: SmppSettings) -> Connection:
    return Connection(
        host=settings.host,
        port=settings.port,
        tls=settings.tls,
        system_id=settings.system_id,
        password=settings.password,
        system_type=settings.system_type,
        window=settings.window,
        rate=settings.rate,
        enquire_every=settings.enquire_every,
        answer_within=settings.answer_within,
    )


def _mistakes(settings: SmppSettings) -> Iterator[str]:
    yield from settings.mistakes("smpp", Smpp.channels)
    checks = [
        (_HOST.fullmatch(settings.host), "host: a name or an address is expected"),
        (0 < settings.port < 0x10000, "port: 1 to 65535 is expected"),
        (_fits(settings.system_id, 15), "system_id: 1 to 15 plain characters are expected"),
        (_fits(settings.password, 8), "password: 1 to 8 plain characters are expected"),
        (_fits(settings.system_type, 12, 0), "system_type: at most 12 plain characters"),
        (_fits(settings.service_type, 5, 0), "service_type: at most 5 plain characters"),
        (
            _senders_fit(settings.sender),
            "sender: up to 11 letters and digits, or up to 15 digits are expected",
        ),
        (_octet(settings.sender_ton), "sender_ton: 0 to 255 is expected"),
        (_octet(settings.sender_npi), "sender_npi: 0 to 255 is expected"),
        (settings.alphabet in gsm.ALPHABETS, f"alphabet: one of {', '.join(gsm.ALPHABETS)}"),
        (settings.long_text in LONG_TEXTS, f"long_text: one of {', '.join(LONG_TEXTS)}"),
        (settings.message_ids in MESSAGE_IDS, f"message_ids: one of {', '.join(MESSAGE_IDS)}"),
        (
            all(_vendor_status(*pair) for pair in settings.vendor_statuses.items()),
            f'vendor_statuses: "0x401" = one of {", ".join(RefusalKind)}, for instance',
        ),
        (settings.window >= 1, "window: at least 1 is expected"),
        (settings.enquire_every > 0, "enquire_every: more than 0 seconds are expected"),
        (settings.answer_within > 0, "answer_within: more than 0 seconds are expected"),
        (settings.avoid >= 0, "avoid: 0 seconds or more are expected"),
    ]
    yield from (message for fine, message in checks if not fine)


def _fits(value: str, most: int, least: int = 1) -> bool:
    return least <= len(value) <= most and value.isascii() and value.isprintable()


def _octet(value: int | None) -> bool:
    return value is None or 0 <= value <= 0xFF


def _vendor_status(status: str, kind: str) -> bool:
    return bool(_STATUS.fullmatch(status)) and int(status, 16) > 0 and kind in set(RefusalKind)


def _senders_fit(sender: Sender) -> bool:
    senders = sender.values() if isinstance(sender, Mapping) else [sender]
    return all(
        _NUMERIC.fullmatch(one) or _NAME.fullmatch(one) for one in senders if one is not None
    )
