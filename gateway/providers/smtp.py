"""E-mail by SMTP, with delivery status notifications for receipts.

RFC 5321 (SMTP), 3461 (DSN options), 3463 (enhanced status codes), 3464 (DSN format), 6522
(multipart/report), 8098 (read receipts), 3834 (Auto-Submitted).

A notification is forgeable mail: the server that receives the bounces posts each of them, whole
(message/rfc822), to a URL whose last segment is secret, and only what bears our tag is believed.
The tag is the attempt id and a MAC over it. It stands in the envelope sender, the envelope id and
the Message-ID, so that it comes back whichever of the three a server keeps. Many servers never
report success: DELIVERED is promised only where the operator says so.

Unconfirmed: which servers a message meets and what they report; that every relay keeps the
envelope id; nothing here was exercised against a public mail provider.

Over 400 lines, as every provider is one file: the mail it makes and the bounces it reads.
"""

import email
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage, Message
from email.policy import SMTP
from email.utils import format_datetime
from typing import ClassVar

from gateway.domain import identity, mail, vendor
from gateway.domain.delivery import State
from gateway.domain.vendor import Meaning
from gateway.ports import (
    Accepted,
    Auth,
    Callback,
    Correlation,
    Mail,
    Malformed,
    Outcome,
    Outgoing,
    Receipt,
    RefusalKind,
    Refused,
    Reply,
    RouteSettings,
    Secret,
    Sheet,
    SmtpAnswer,
    SmtpReply,
    SmtpServer,
    SmtpStage,
    Unknown,
    Wire,
)

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
NO_PASSWORD = Secret("")  # nobody logs in
SECURITY = ("starttls", "tls", "none")
LOCAL_LIMIT = 10  # characters before the plus sign: an id and a MAC follow, within 64

# What a notification may cost us. One of ours returns headers only, a few thousand bytes.
MAX_REPORT = 64 * 1024  # bytes
MAX_TYPES = 30  # mentions of Content-Type: each may open one level more
MAX_RECIPIENTS = 20

MAC_DIGITS = 16  # hexadecimal: 64 bits, to be guessed over the network
_TAG = re.compile(r"(?<![a-z0-9-])([a-z0-9][a-z0-9-]{0,63})-([0-9a-f]{16})(?![a-z0-9-])")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_QUEUED = re.compile(  # Postfix, Exim and others; a word without a digit is a word
    r"\b(?:queued as |id=|Ok:? )(?=\S*[0-9])([A-Za-z0-9][A-Za-z0-9._-]{5,99})", re.IGNORECASE
)
_READ = re.compile(r"manual-action/[A-Za-z-]+;\s*displayed", re.IGNORECASE)

_POLICY = SMTP.clone(cte_type="7bit")


@dataclass(frozen=True, kw_only=True, slots=True)
class SmtpSettings(RouteSettings):  # `sender`: the name shown beside the address
    concurrency: int = 8  # as many connections
    host: str
    port: int = 587
    security: str = "starttls"  # required; or tls (port 465), or on the loopback none
    username: str | None = None
    password: Secret = NO_PASSWORD
    ca_file: str | None = None  # PEM: whom to trust instead of the system's authorities
    from_address: str
    bounce_address: str  # bounces go to <local>+<tag>@<domain>
    tag_key: tuple[Secret, ...]  # makes the tags; two while one is replaced, the new one first
    callback_key: tuple[Secret, ...] = ()  # two while one is replaced; none: no receipt gets in
    delivery_reports: bool = False  # the recipients' servers report success: promise DELIVERED
    read_receipts: bool = False  # ask the reader's program for one; most ignore it
    avoid: float = 604_800.0  # seconds an address is left alone that does not exist


class Smtp:
    Settings = SmtpSettings
    wire: ClassVar = Wire.SMTP
    sheet: ClassVar = Sheet(
        vendor="SMTP",
        proof="the callback key in the URL, and our own tag in every notification",
        setup=("Let the server that gets the bounces post each one, whole, to the callback URL.",),
        callback="{public_url}/otp/delivered/{route}/{key}",
    )
    channels = frozenset({"email"})
    correlates = Correlation.ECHO
    idempotent = False  # a Message-ID seen before is a second message to most servers
    signed = False
    validity = False

    def __init__(self, settings: SmtpSettings) -> None:
        if wrong := "; ".join(_mistakes(settings)):
            raise ValueError(wrong)
        self.name = settings.name
        self.channel = settings.channel
        self.account = settings.account
        self.sender = settings.sender
        self.timeout = settings.timeout
        self.rate = settings.rate
        self.concurrency = settings.concurrency
        self.confirms = _confirms(settings)
        self._avoid = settings.avoid
        self._from = settings.from_address
        self._read_receipts = settings.read_receipts
        self._bounces = settings.bounce_address.split("@")
        self._tag_keys = tuple(key.encode() for key in settings.tag_key)
        self._callback_keys = tuple(key.encode() for key in settings.callback_key)
        secrets = (settings.password, *settings.tag_key, *settings.callback_key)
        self._secrets = tuple(filter(None, secrets))
        self.server = SmtpServer(
            host=settings.host,
            port=settings.port,
            security=settings.security,
            username=settings.username or None,
            password=settings.password,
            ca_file=settings.ca_file,
            hello=self._bounces[1],
            connections=settings.concurrency,
        )

    # What a server did with the message: the Action of a notification.
    statuses: ClassVar[Mapping[str, Meaning]] = {
        "delivered": Meaning(State.DELIVERED),  # in the mailbox
        "relayed": Meaning(State.ACK),  # to a server without DSN: nothing more will be heard
        "expanded": Meaning(State.ACK),  # to several mailboxes
        "delayed": Meaning(None),  # still being tried
        "failed": Meaning(State.FAILED, "not_delivered"),  # `details` say why
    }

    # Subject and detail of the enhanced status codes that tell more than their class. Permanent
    # counts only in class 5.
    details: ClassVar[Mapping[str, Meaning]] = {
        "1.1": Meaning(State.FAILED, "bad_destination", permanent=True),  # no such mailbox
        "1.2": Meaning(State.FAILED, "bad_destination", permanent=True),  # no such domain
        "1.3": Meaning(State.FAILED, "bad_destination", permanent=True),  # malformed
        "1.6": Meaning(State.FAILED, "bad_destination", permanent=True),  # moved away
        "1.10": Meaning(State.FAILED, "bad_destination", permanent=True),  # takes no mail at all
        "2.1": Meaning(State.FAILED, "mailbox_disabled", permanent=True),
        "2.2": Meaning(State.FAILED, "mailbox_full"),  # for now, whatever the class says
        "4.7": Meaning(State.FAILED, "expired"),  # tried long enough
    }

    # Reply codes without an enhanced one that tell more than their first digit. 550 alone may mean
    # a policy: the address is not left alone for it.
    bare: ClassVar[Mapping[int, Meaning]] = {
        550: Meaning(State.FAILED, "rejected", permanent=True),  # mailbox unavailable, or policy
        551: Meaning(State.FAILED, "rejected", permanent=True),  # not here
        552: Meaning(State.FAILED, "mailbox_full"),
        553: Meaning(State.FAILED, "rejected", permanent=True),  # not allowed, or malformed
    }

    # Those of `details` that are about the address: it is left alone for a while.
    gone: ClassVar = frozenset({"bad_destination", "mailbox_disabled"})

    # What is refused before a recipient was named is refused to everybody.
    refusals: ClassVar[Mapping[SmtpStage, str]] = {
        SmtpStage.CONNECT: "connection_refused",
        SmtpStage.HELLO: "connection_refused",
        SmtpStage.TLS: "tls_refused",
        SmtpStage.AUTH: "unauthorized",
        SmtpStage.MAIL: "bad_sender",
    }

    # Reply codes that speak of the account wherever they come.
    unauthorized: ClassVar = frozenset(
        {
            530,  # log in first
            534,  # by another mechanism
            535,  # user name or password wrong
            538,  # encrypt first
        }
    )

    def build(self, outgoing: Outgoing) -> Mail:
        recipient = outgoing.recipient
        if not mail.is_mailbox(recipient):
            raise ValueError("the recipient is not a plain e-mail address")
        tag = self._tag(outgoing.attempt_id)
        local, domain = self._bounces
        return Mail(
            sender=f"{local}+{tag}@{domain}",
            recipient=recipient,
            # By hand: the library folds it before its only word, which some servers misread.
            content=f"Message-ID: <{tag}@{domain}>\r\n".encode()
            + self._message(outgoing, tag).as_bytes(),
            mail_options=("RET=HDRS", f"ENVID={tag}"),
            rcpt_options=("NOTIFY=SUCCESS,FAILURE,DELAY", f"ORCPT=rfc822;{xtext(recipient)}"),
        )

    def auth(self) -> Auth | None:
        return None

    def parse(self, response: SmtpAnswer) -> Outcome:
        stage, reply = response.stage, response.reply
        error = self._error(reply)
        if stage is SmtpStage.MESSAGE and reply.code == 250:
            queued = _QUEUED.search(reply.text)
            return Accepted(queued[1] if queued else None)
        if not 400 <= reply.code < 600:
            if stage is SmtpStage.MESSAGE:
                return Unknown("odd_answer", error)
            return Refused("odd_answer", RefusalKind.TEMPORARY, error=error)  # not sent: no body
        if reply.code in self.unauthorized:
            return Refused("unauthorized", RefusalKind.ACCOUNT, error=error)
        meaning = self._failure(reply)
        if _class(reply) == "4":
            reason = "deferred" if meaning.reason == "not_delivered" else meaning.reason
            return Refused(reason or "deferred", RefusalKind.TEMPORARY, error=error)
        if stage in self.refusals:
            return Refused(self.refusals[stage], RefusalKind.ACCOUNT, error=error)
        reason = "rejected" if meaning.reason == "not_delivered" else meaning.reason
        kind = RefusalKind.PERMANENT if meaning.permanent else RefusalKind.TEMPORARY
        return Refused(reason or "rejected", kind, error=error, avoid=self._avoided(meaning))

    def authenticate(self, callback: Callback) -> bool:
        """Nobody signs mail for us; the secret is the end of the URL the bounces are posted to."""
        if callback.method != "POST" or callback.key is None:
            return False
        given = callback.key.encode(errors="backslashreplace")
        found = False
        for key in self._callback_keys:  # all of them, so that time does not tell which
            found |= hmac.compare_digest(key, given)
        return found

    def handshake(self, callback: Callback) -> Reply | None:
        return None

    def receipts(self, callback: Callback) -> Sequence[Receipt | Malformed]:
        body = callback.body
        if len(body) > MAX_REPORT or body.lower().count(b"content-type") > MAX_TYPES:
            return [Malformed("too large or too deep for a notification", body)]
        try:
            message = email.message_from_bytes(body)
            attempt_id = self._attempt(message)
            if attempt_id is not None:
                return list(self._statements(message, attempt_id))
        except Exception as error:  # noqa: BLE001 (the parser's own; it has many kinds)
            return [Malformed(f"not a message: {type(error).__name__}", body)]
        return [Malformed("no tag of ours", body)]

    def _tag(self, attempt_id: str) -> str:
        tag = f"{attempt_id}-{_mac(self._tag_keys[0], attempt_id)}"
        if not _TAG.fullmatch(tag):
            raise ValueError("the attempt id cannot stand in an address")
        return tag

    def _message(self, outgoing: Outgoing, tag: str) -> EmailMessage:
        message = EmailMessage(policy=_POLICY)
        message["From"] = str(Address(outgoing.sender or "", addr_spec=self._from))
        message["To"] = outgoing.recipient
        message["Subject"] = mail.subject(outgoing.subject, outgoing.sender)
        if (moment := _moment(outgoing.attempt_id)) is not None:
            message["Date"] = format_datetime(moment)
        message["Auto-Submitted"] = "auto-generated"
        message["X-Auto-Response-Suppress"] = "All"  # Exchange: no out-of-office replies
        if self._read_receipts:
            # Sent unasked to the envelope sender only (RFC 8098, 2.1), which also has our tag.
            message["Disposition-Notification-To"] = f"{self._bounces[0]}+{tag}@{self._bounces[1]}"
        html = mail.page(outgoing.text, outgoing.code, outgoing.locale)
        message.set_content(outgoing.text, cte="quoted-printable")
        message.add_alternative(html, subtype="html", cte="quoted-printable")
        message.set_boundary(f"=_{tag}")  # ours, so that one attempt is one message to the byte
        return message

    def _attempt(self, message: Message) -> str | None:
        """The attempt that the first tag of ours names."""
        for text in _places(message):
            for attempt_id, mac in _TAG.findall(text.lower())[:5]:
                found = False
                for key in self._tag_keys:
                    found |= hmac.compare_digest(_mac(key, attempt_id), mac)
                if found:
                    return str(attempt_id)
        return None

    def _statements(self, message: Message, attempt_id: str) -> Iterator[Receipt | Malformed]:
        """What a notification says; an automatic reply or any other letter says nothing."""
        for part in message.walk():
            match part.get_content_type():
                case "message/delivery-status":
                    for block in _blocks(part)[1 : 1 + MAX_RECIPIENTS]:
                        yield self._report(block, attempt_id)
                    return
                case "message/disposition-notification":
                    yield self._disposition(part, attempt_id)
                    return
        if message["X-Failed-Recipients"]:  # Exim, when it does not write a report
            yield Receipt(
                word="failed",
                state=State.FAILED,
                attempt_id=attempt_id,
                reason="not_delivered",
                raw=b"X-Failed-Recipients",
            )

    def _report(self, block: Message, attempt_id: str) -> Receipt | Malformed:
        """One recipient's fields (RFC 3464, 2.3)."""
        raw = _raw(block)
        word = vendor.storable(_field(block, "Action"))
        if word is None:
            return Malformed("Action is missing or unusable", raw)
        action = word.partition("(")[0].strip()  # sendmail comments on it: relayed (to …)
        meaning = self.statuses.get(action.lower(), Meaning(None))
        if meaning.state is State.FAILED:
            status = _STATUS.match(_field(block, "Status") or "")
            meaning = self._failure(SmtpReply(0, status[0] if status else None, ""))
        return Receipt(
            word=word,
            state=meaning.state,
            attempt_id=attempt_id,
            reason=meaning.reason,
            permanent=meaning.permanent,
            recipient=_original_recipient(block),
            provider_time=vendor.storable(_field(block, "Last-Attempt-Date")),
            avoid=self._avoided(meaning),
            raw=raw,
        )

    def _disposition(self, part: Message, attempt_id: str) -> Receipt | Malformed:
        """A reader's program says what it did (RFC 8098); only its reader's hand counts."""
        fields = next(iter(_blocks(part)), part)
        word = vendor.storable(_field(fields, "Disposition"))
        if word is None:
            return Malformed("Disposition is missing or unusable", _raw(fields))
        state = State.READ if _READ.match(word) else None
        return Receipt(word=word, state=state, attempt_id=attempt_id, raw=_raw(fields))

    def _failure(self, reply: SmtpReply) -> Meaning:
        """Why something was not delivered. The enhanced code tells more than the plain one."""
        if reply.enhanced is None:
            return self.bare.get(
                reply.code, Meaning(State.FAILED, "not_delivered", reply.code >= 500)
            )
        permanent = reply.enhanced.startswith("5")
        detail = reply.enhanced[2:]
        reason = "policy" if detail.startswith("7.") else "not_delivered"
        meaning = self.details.get(detail, Meaning(State.FAILED, reason, permanent=True))
        return replace(meaning, permanent=permanent and meaning.permanent)

    def _avoided(self, meaning: Meaning) -> float | None:
        about_address = meaning.permanent and meaning.reason in self.gone
        return self._avoid if about_address else None

    def _error(self, reply: SmtpReply) -> str:
        text = mail.redact(reply.text, self._secrets)
        return ": ".join(filter(None, (str(reply.code), reply.enhanced, text)))


def xtext(text: str) -> str:
    """An address as DSN options want it (RFC 3461, 4)."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)


def _mac(key: bytes, attempt_id: str) -> str:
    return hmac.new(key, attempt_id.encode(), "sha256").hexdigest()[:MAC_DIGITS]


def _moment(attempt_id: str) -> datetime | None:
    """When the attempt was made, which its id (a UUIDv7) tells: a message needs a Date, and
    nothing here looks at a clock.
    """
    named = identity.parse(attempt_id)
    if named is None or named.version != 7:
        return None
    return datetime.fromtimestamp((named.int >> 80) // 1000, UTC)


def _class(reply: SmtpReply) -> str:
    """4: later perhaps, 5: never. The enhanced code decides where the two differ."""
    return (reply.enhanced or str(reply.code))[0]


def _places(message: Message) -> Iterator[str]:
    """Where a tag may stand, the surest place first: the envelope id, the address the
    notification was sent to, then what it returns of our own headers.
    """
    parts = list(message.walk())
    for part in parts:
        yield from _fields(part, "Original-Envelope-Id", "Original-Message-ID")
    yield from _fields(message, "To", "Delivered-To", "X-Original-To", "Envelope-To")
    for part in parts[1:]:
        headers = part
        if part.get_content_type() == "text/rfc822-headers":
            headers = email.message_from_string(str(part.get_payload()))
        yield from _fields(headers, "Return-Path", "Message-ID")


def _blocks(part: Message) -> list[Message]:
    """The groups of fields of a report; the parser makes each a message without a body."""
    payload = part.get_payload()
    return [one for one in payload if isinstance(one, Message)] if isinstance(payload, list) else []


def _fields(block: Message, *names: str) -> Iterator[str]:
    yield from (value for name in names if (value := _field(block, name)) is not None)


def _field(block: Message, name: str) -> str | None:
    """A header unfolded; None where there is none."""
    value = block.get(name)
    return None if value is None else " ".join(str(value).split())


def _original_recipient(block: Message) -> str | None:
    """The address we wrote to. A Final-Recipient may be another one, by forwarding."""
    kind, _, address = (_field(block, "Original-Recipient") or "").partition(";")
    if kind.strip().lower() != "rfc822":
        return None
    return vendor.storable(_XTEXT.sub(lambda found: chr(int(found[1], 16)), address.strip()))


def _raw(block: Message) -> bytes:
    lines = (f"{name}: {' '.join(str(value).split())}" for name, value in block.items())
    return "\n".join(lines).encode(errors="replace") or b"no fields"


def _confirms(settings: SmtpSettings) -> frozenset[State]:
    if not settings.callback_key:
        return frozenset()
    reports = {State.ACK, State.DELIVERED} if settings.delivery_reports else set[State]()
    return frozenset({State.FAILED, *reports})


def _mistakes(settings: SmtpSettings) -> list[str]:
    keys, tags = settings.callback_key, settings.tag_key
    local = settings.bounce_address.partition("@")[0]
    checks = [
        (
            re.fullmatch(r"[A-Za-z0-9.:-]+", settings.host),
            "host: the name or address of a server is expected",
        ),
        (0 < settings.port < 65_536, "port: 1 to 65535 is expected"),
        (settings.security in SECURITY, f"security: {', '.join(SECURITY)} are expected"),
        (
            settings.security != "none" or settings.host in LOOPBACK,
            "security: none is for the loopback only",
        ),
        (
            bool(settings.username) == bool(settings.password)
            and f"{settings.username}{settings.password}".isprintable(),
            "username: it and password are given together, in printable characters, or not at all",
        ),
        (
            mail.is_mailbox(settings.from_address),
            "from_address: a plain e-mail address is expected",
        ),
        (
            mail.is_mailbox(settings.bounce_address)
            and re.fullmatch(r"[a-z0-9._-]+", local)
            and len(local) <= LOCAL_LIMIT,
            f"bounce_address: {LOCAL_LIMIT} lower-case characters, at most, and @… are expected",
        ),
        (
            isinstance(tags, tuple) and tags and all(tags),
            "tag_key: one or two keys that are not empty are expected",
        ),
        (
            isinstance(keys, tuple) and all(keys),
            "callback_key: one or two keys that are not empty are expected",
        ),
        (settings.avoid >= 0, "avoid: 0 seconds or more are expected"),
    ]
    common = settings.mistakes("smtp", Smtp.channels)
    return [*common, *(message for fine, message in checks if not fine)]
