"""The phone page: what every handset got, what did not arrive, and the magic numbers.

Rendered here and complete without script; `static/phone.js` only fetches it again when something
has changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from gateway.sandbox.behaviour import TABLE, Answer, Channel, Stage
from gateway.sandbox.markup import Html, tag, text
from gateway.sandbox.phones import Message, Phones

PHONES_SHOWN = 24
MESSAGES_SHOWN = 4  # of each phone, when there are many
MESSAGES_OF_ONE = 200

NAMES = {
    Channel.SMS: "SMS",
    Channel.VOICE: "Voice call",
    Channel.MESSENGER: "Messenger",
    Channel.WHATSAPP: "WhatsApp",
    Channel.MESSENGER: "Messenger",
    Channel.WHATSAPP: "WhatsApp",
    Channel.TELEGRAM: "Telegram",
    Channel.VIBER: "Viber",
    Channel.RCS: "RCS",
    Channel.SMS: "SMS",
    Channel.VOICE: "Voice call",
    Channel.EMAIL: "E-mail",
}
INSTEAD = {
    Answer.THROTTLED: "429: too many requests",
    Answer.ERROR: "500: server error",
    Answer.REFUSED: "refused for good",
}
EXAMPLES = (
    ("+33600000000", "everything is delivered"),
    ("+33600010000", "the messenger message is read"),
    ("+33600020000", "the messenger is silent; the SMS arrives"),
    ("+33600120300", "not on the messenger, the SMS fails; the call is answered"),
    ("+33600001100", "the SMS arrives, but its sender never learns that it was accepted"),
)


@dataclass(frozen=True, slots=True)
class View:
    """What is looked at: all phones, or one. `base` is the path the sandbox is mounted under."""

    base: str
    serial: int
    number: str | None = None


def overview(phones: Phones, base: str) -> str:
    """All phones, the one with the newest message first."""
    numbers = phones.numbers(PHONES_SHOWN)
    cards = [_card(base, number, phones.of(number), MESSAGES_SHOWN) for number in numbers]
    hidden = phones.count() - len(cards)
    more = tag("p", f"{hidden} older phones are not shown.", class_="note") if hidden else ""
    content = _cards(cards or [_nothing_yet()])
    return _document(View(base, phones.serial), content, more, _magic_numbers())


def one(phones: Phones, base: str, number: str) -> str:
    """One phone, with all it got."""
    card = _card(base, number, phones.of(number), MESSAGES_OF_ONE)
    back = tag("p", tag("a", "All phones", href=f"{base}/"), class_="note")
    return _document(View(base, phones.serial, number), _cards([card]), back)


def _document(view: View, *content: str) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{view.number or 'Phones'} · sandbox"),
        tag("link", rel="icon", href="data:,"),
        tag("link", rel="stylesheet", href=f"{view.base}/static/phone.css"),
        tag("script", src=f"{view.base}/static/phone.js", defer=True),
    )
    main = tag(
        "main",
        *content,
        id="main",
        data_serial=str(view.serial),
        data_base=view.base,
        data_number=view.number,
    )
    body = tag("body", _header(view), main, _footer())
    return "<!doctype html>\n" + tag("html", head, body, lang="en")


def _header(view: View) -> Html:
    path = f"/phones/{quote(view.number, safe='+@')}" if view.number else "/"
    here = view.base + path
    return tag(
        "header",
        tag("h1", "Sandbox phones"),
        tag("p", "What the handsets got. No real phone is involved."),
        tag("p", tag("a", "Refresh", href=here), id="refresh"),
        tag("p", role="status", id="news"),
        tag(
            "form",
            tag("button", "Clear all phones"),
            method="post",
            action=f"{view.base}/messages/clear",
        ),
    )


def _footer() -> Html:
    return tag("footer", tag("p", "Times are UTC."))


def _cards(cards: Sequence[Html]) -> Html:
    return tag("div", *cards, class_="phones", id="phones")


def _nothing_yet() -> Html:
    said = "No message yet. Send one to any number: it appears here when it arrives."
    return tag("p", said, class_="empty")


def _card(base: str, number: str, messages: Sequence[Message], limit: int) -> Html:
    shown = messages[-limit:]
    got = [_bubble(message) for message in shown if message.arrived_at]
    lost = [_missing(message) for message in shown if not message.arrived_at]
    more = ""
    if len(shown) < len(messages):
        more = _link_to(base, number, f"{len(messages) - len(shown)} earlier", "earlier")
    return tag(
        "section",
        tag("h2", _link_to(base, number, number)),
        more,
        tag("ol", *got, class_="screen") if got else tag("p", "Nothing arrived.", class_="screen"),
        tag("h3", "Not arrived") if lost else "",
        tag("ol", *lost, class_="missing") if lost else "",
        class_="phone",
        id=f"phone-{number.removeprefix('+')}",
        aria_label=f"Phone {number}",
    )


def _link_to(base: str, number: str, label: str, class_: str | None = None) -> Html:
    return tag("a", label, href=f"{base}/phones/{quote(number, safe='+@')}", class_=class_)


def _bubble(message: Message) -> Html:
    sender = tag("b", message.sender) if message.sender else ""
    return tag(
        "li",
        tag("p", tag("span", NAMES[message.channel], class_="channel"), sender, class_="from"),
        tag("p", message.text, class_="text"),
        tag(
            "div",
            _details(message),
            tag("p", _time(message.arrived_at or message.at), " ", _ticks(message), class_="when"),
            class_="foot",
        ),
        class_=f"bubble {message.channel.value}",
    )


def _missing(message: Message) -> Html:
    marker, fate = _fate(message)
    return tag(
        "li",
        tag("p", tag("span", marker, class_="marker", aria_hidden="true"), tag("b", fate)),
        tag("p", tag("span", NAMES[message.channel], class_="channel"), " ", _time(message.at)),
        tag("p", message.text, class_="text"),
        _details(message),
        class_="lost" if marker == "✕" else "waiting",
    )


def _fate(message: Message) -> tuple[str, str]:
    """A marker and the words for a message that is not on the handset."""
    if message.answer in INSTEAD:
        return "✕", INSTEAD[message.answer]
    if message.status is None:
        return "…", "accepted, nothing heard since"
    if message.status.stage is Stage.FAILED:
        return "✕", f"failed ({message.status.word})"
    return "…", f"on its way ({message.status.word})"


def _ticks(message: Message) -> Html:
    if message.read_at:
        return tag("span", "✓✓", class_="ticks read", title="read", aria_label="read", role="img")
    return tag("span", "✓✓", class_="ticks", title="delivered", aria_label="delivered", role="img")


def _details(message: Message) -> Html:
    """What the sender was told, and whether it listened."""
    lines = [f"number says {message.behaviour.value}: {TABLE[message.behaviour].does}"]
    lines += [f"id {message.id}"]
    lines += [f"sender's id {message.client_ref}"] if message.client_ref else []
    lines += [f"submitted {message.repeats} times more, refused"] if message.repeats else []
    lines += [f"{posted.word} → {posted.http or 'nobody there'}" for posted in message.receipts]
    count = len(message.receipts)
    summary = f"{count} receipt{'s' * (count != 1)}"
    items = tag("ul", *(tag("li", line) for line in lines))
    return tag("details", tag("summary", summary), items, data_key=str(message.key))


def _time(at: datetime) -> Html:
    at = at.astimezone(UTC)
    return tag("time", f"{at:%H:%M:%S}", datetime=at.isoformat(timespec="milliseconds"))


def _magic_numbers() -> Html:
    rows = [
        tag("tr", tag("th", tag("code", behaviour.value), scope="row"), tag("td", row.does))
        for behaviour, row in TABLE.items()
    ]
    examples = [tag("li", tag("code", number), " ", said) for number, said in EXAMPLES]
    return tag(
        "section",
        tag("h2", "Magic numbers"),
        tag(
            "p",
            tag("code", "+33 600 MM SS VV"),
            ": MM is what the messenger does, SS the SMS, VV the voice call. "
            "Of a mail address the two digits before the @ count. "
            "Every other number or address behaves like 00.",
        ),
        tag("ul", *examples),
        tag(
            "table",
            tag("caption", "What two digits do"),
            tag(
                "thead",
                tag("tr", tag("th", "Digits", scope="col"), tag("th", "What happens", scope="col")),
            ),
            tag("tbody", text(*rows)),
        ),
        class_="magic",
    )
