"""What the items of a callback, or of the answer to a poll, say: read by a definition, not yet in
the words of the ports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from gateway.domain import vendor
from gateway.domain.declared import bodies, paths
from gateway.domain.declared.bodies import Kind
from gateway.domain.declared.definition import Definition
from gateway.domain.declared.parts import CallbackShape
from gateway.domain.declared.paths import Paths
from gateway.domain.delivery import State
from gateway.domain.vendor import Meaning


@dataclass(frozen=True, slots=True)
class Item:
    """One item, the body it stands in, and its bytes. `wrong`: why it is none."""

    value: object
    body: object
    raw: bytes
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """What an item says. `wrong`: why it says nothing that can be used."""

    wrong: str = ""
    word: str = ""
    meaning: Meaning = Meaning(None)  # noqa: RUF009 (frozen)
    reference: str | None = None
    attempt_id: str | None = None
    recipient: str | None = None
    time: str | None = None
    cost: str | None = None


def items(shape: CallbackShape, content: bytes, query: Mapping[str, str]) -> list[Item]:
    """The items of a callback; those that are no receipts are left out."""
    body = bodies.read(shape.content, content, query)
    raw = urlencode(query).encode() if shape.content is Kind.QUERY else content
    if body is None:
        return [Item(None, None, raw, f"not {shape.content}")]
    if shape.items is None:
        found = [Item(body, body, raw)]
    elif shape.items.begins(body):
        found = [Item(one, body, vendor.as_json(one)) for one in shape.items.all(body, body)]
    else:
        found = [Item(None, body, raw, "no list of items")]
    return [one for one in map(_object, found) if one.wrong or _wanted(shape, one)]


def read(declared: Definition, item: object, body: object) -> Statement:
    """What one item says."""
    fields = declared.fields
    reference = _text(fields.id, item, body, exact=True)
    attempt_id = _text(fields.attempt_id, item, body, exact=True)
    word = _word(fields.status, item, body)
    if (fields.id and reference is None) or (reference is None and attempt_id is None):
        return Statement("the id is missing or unusable")
    if word is None:
        return Statement("the status is missing or unusable")
    time = _text(fields.time, item, body)
    return Statement(
        word=word,
        meaning=_meaning(declared, word, _text(fields.error, item, body)),
        reference=reference,
        attempt_id=attempt_id,
        recipient=_text(fields.recipient, item, body),
        time=fields.moment(time) if time is not None else None,
        cost=cost(fields.amount, fields.currency, item, body),
    )


def cost(amount: Paths, currency: Paths, item: object, body: object) -> str | None:
    """A price such as "0.0075 USD"."""
    price, unit = _text(amount, item, body), _text(currency, item, body)
    return vendor.storable(f"{price} {unit}" if unit else price) if price else None


def _object(item: Item) -> Item:
    if item.wrong or isinstance(item.value, dict):
        return item
    return Item(item.value, item.body, item.raw, "not an object")


def _wanted(shape: CallbackShape, item: Item) -> bool:
    return shape.where is None or shape.where.holds(item.value, item.body)


def _text(where: Paths, item: object, body: object, *, exact: bool = False) -> str | None:
    """The text there. `exact`: ids are texts, and a number is none unless its path says |str."""
    value = paths.first(where, item, body)
    return vendor.storable(value if exact else paths.text(value))


def _word(status: Sequence[Paths], item: object, body: object) -> str | None:
    """The fields that make the status, joined; the first of them has to be there."""
    parts = [paths.text(paths.first(one, item, body)) for one in status]
    if not parts or parts[0] is None or not all(isinstance(p, str | None) for p in parts):
        return None
    while parts[-1] is None:
        parts.pop()
    return vendor.storable("/".join(str(part or "") for part in parts))


def _meaning(declared: Definition, word: str, error: str | None) -> Meaning:
    meaning = declared.statuses.meaning(word) or Meaning(None)
    if meaning.state is not State.FAILED or error is None:
        return meaning
    return declared.failures.meaning(error) or meaning
