"""Bodies as values and back: JSON, forms, query strings and XML, each by its own serialiser.

XML is read into tables: an element's attributes are `@name`, its text is `#text`, and an element
with nothing but text is that text. Entities, document types and great depth are refused.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree as ET
from xml.parsers import expat

import orjson

DEEPEST = 64  # elements within each other
MOST = 10_000  # elements, or fields of a form

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Kind(StrEnum):
    """How a body is written."""

    JSON = "json"
    FORM = "form"
    QUERY = "query"  # no body: everything stands in the URL
    XML = "xml"


CONTENT_TYPES = {
    Kind.JSON: "application/json",
    Kind.FORM: "application/x-www-form-urlencoded",
    Kind.XML: "application/xml",
}


class Elements(list[object]):
    """The XML elements of one name within another."""


def read(kind: Kind, body: bytes, query: Mapping[str, str]) -> object:
    """The body as a value; None when it is not of that kind."""
    match kind:
        case Kind.QUERY:
            return dict(query)
        case Kind.JSON:
            return _json(body)
        case Kind.FORM:
            return form(body)
        case Kind.XML:
            return _xml(body)


def write(kind: Kind, tree: Mapping[str, object]) -> bytes:
    """A filled template as bytes."""
    match kind:
        case Kind.JSON:
            return orjson.dumps(tree)
        case Kind.FORM:
            return query(tree).encode()
        case Kind.XML:
            written = [ET.tostring(_element(name, root), "utf-8") for name, root in tree.items()]
            return b"".join(written)  # one, or none where nothing was there to say
        case Kind.QUERY:
            return b""


def query(tree: Mapping[str, object]) -> str:
    """A filled template as fields; a list is a field that comes several times."""
    return urlencode({name: _fields(value) for name, value in tree.items()}, doseq=True)


def form(body: bytes) -> dict[str, object] | None:
    """The fields of a form; one that comes several times is a list."""
    fields: dict[str, object] = {}
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=MOST
        )
    except ValueError:
        return None
    for name, value in pairs:
        before = fields.get(name)
        if before is None:
            fields[name] = value
        else:
            fields[name] = [*before, value] if isinstance(before, list) else [before, value]
    return fields


def _fields(value: object) -> object:
    if isinstance(value, list):
        return [_fields(one) for one in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def _json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _element(name: str, value: object) -> ET.Element:
    made = ET.Element(name)
    if not isinstance(value, dict):
        made.text = _clean(value)
        return made
    for key, inside in value.items():
        if key == "#text":
            made.text = _clean(inside)
        elif key.startswith("@"):
            made.set(key[1:], _clean(inside))
        else:
            several = inside if isinstance(inside, list) else [inside]
            made.extend([_element(key, one) for one in several])
    return made


def _clean(value: object) -> str:
    """Without the characters that XML cannot carry."""
    return _NO_XML.sub("", str(_fields(value)))


class _Refused(Exception):
    """A document that is not worth reading."""


def _xml(body: bytes) -> object:
    parser = expat.ParserCreate()
    reader = _Reader()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    # Without a document type there is no entity to declare, none to expand, none to fetch.
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, _Refused, ValueError, LookupError):
        return None
    return reader.root


def _refuse(*_: object) -> None:
    raise _Refused


class _Reader:
    """Builds the tables while expat walks the document."""

    def __init__(self) -> None:
        self.root: dict[str, object] = {}
        self._open: list[tuple[str, dict[str, object], list[str]]] = []
        self._count = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._count += 1
        if len(self._open) >= DEEPEST or self._count > MOST:
            raise _Refused
        self._open.append((name, {f"@{key}": text for key, text in attributes.items()}, []))

    def text(self, piece: str) -> None:
        self._open[-1][2].append(piece)

    def end(self, name: str) -> None:
        name, table, pieces = self._open.pop()
        text = "".join(pieces).strip()
        if table and text:
            table["#text"] = text
        holder = self._open[-1][1] if self._open else self.root
        same = holder.setdefault(name, Elements())
        if isinstance(same, Elements):
            same.append(table or text)
