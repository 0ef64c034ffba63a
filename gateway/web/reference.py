"""The OpenAPI document for people: blocks, written as HTML (`/docs`) or Markdown (docs/api.md).

It knows the shapes that `openapi.py` writes, not OpenAPI at large. Texts hold `code` and
[links](#to-headings) and are escaped where they become HTML.
"""

import html
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]
_MADE_UP = "http://127.0.0.1:8080"
_RANGES = {
    "minimum": "from {}",
    "maximum": "to {}",
    "maxLength": "{} characters at most",
    "minItems": "{} at least",
    "maxItems": "{} at most",
    "maxProperties": "{} at most",
    "pattern": "`{}`",
}


class Heading(NamedTuple):
    """`level` 1 to 4."""

    level: int
    text: str


class Text(NamedTuple):
    """Paragraphs, an empty line between them."""

    text: str


class Code(NamedTuple):
    """Something to copy."""

    language: str
    text: str


class Table(NamedTuple):
    """Rows of texts under a head."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


Block = Heading | Text | Code | Table


def blocks(document: Json) -> Iterator[Block]:
    """The reference in reading order: calls by tag, objects, problems."""
    info = document["info"]
    yield Heading(1, f"{info['title']}: the API")
    yield Text(info["description"])
    for tag in document["tags"]:
        yield Heading(2, tag["name"])
        yield Text(tag["description"])
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    yield from _call(document, f"{method.upper()} {path}", operation)
    yield Heading(2, "Objects")
    for name, schema in document["components"]["schemas"].items():
        yield from _object(name, schema)
    yield Heading(2, "Problems")
    yield Text("Every `code` there is.")
    rows = [
        (", ".join(map(str, one["status"])), f"`{code}`", one["description"])
        for code, one in document["x-problems"].items()
    ]
    yield Table(("status", "code", "meaning"), rows)


def _call(document: Json, line: str, operation: Json) -> Iterator[Block]:
    yield Heading(3, line)
    scopes = [scope for one in operation["security"] for scope in one.get("bearer", ())]
    key = f"Needs a key with the scope `{scopes[0]}`." if scopes else "Needs no key."
    yield Text(f"**{operation['summary']}.** {operation['description']} {key}")
    given = operation.get("parameters", ())
    if given:
        rows = [
            (f"`{one['name']}`", one["in"], _kind(one["schema"]), one["description"])
            for one in given
        ]
        yield Table(("parameter", "in", "type", "meaning"), rows)
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is not None:
        yield Text(f"Body: {_kind(content['schema'])}.")
        for example in content.get("examples", {}).values():
            yield Code("sh", _curl(line.partition(" ")[2], example["value"]))
    refusals = []
    for status, answer in operation["responses"].items():
        kinds = answer.get("content", {})
        if "application/problem+json" in kinds:
            refusals += _codes(document, status, kinds["application/problem+json"]["schema"])
            continue
        schema = kinds.get("application/json", {}).get("schema")
        yield Text(f"{status}: {answer['description']}" + (f" {_kind(schema)}." if schema else ""))
        if schema:
            yield Code("json", json.dumps(_example(document, schema), indent=2, ensure_ascii=False))
    if refusals:
        yield Table(("status", "code", "meaning"), refusals)


def _codes(document: Json, status: str, schema: Json) -> list[tuple[str, ...]]:
    codes = schema["allOf"][1]["properties"]["code"]["enum"]
    return [(status, f"`{code}`", document["x-problems"][code]["description"]) for code in codes]


def _object(name: str, schema: Json) -> Iterator[Block]:
    yield Heading(3, name)
    about = " ".join(schema.get("description", "").split())
    if "enum" in schema:
        yield Text(f"{about} One of {', '.join(f'`{one}`' for one in schema['enum'])}.".strip())
        return
    yield Text(about)
    fields = schema.get("properties", {})
    needed = set(schema.get("required", ()))
    needed = set() if needed == fields.keys() else needed  # where all are there, none stands out
    rows = [
        (
            f"`{field}`" + (" (required)" if field in needed else ""),
            _kind(one),
            _meaning(one),
            ", ".join(f"`{json.dumps(e, ensure_ascii=False)}`" for e in one.get("examples", ())),
        )
        for field, one in fields.items()
    ]
    yield Table(("field", "type", "meaning", "example"), rows)


def _meaning(field: Json) -> str:
    default = field.get("default")
    told = str(field.get("description", ""))
    return f"{told} Default: `{default}`." if default else told


def _kind(schema: Json) -> str:
    """The type in words, with its bounds."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_kind(one) for one in schema[several])
    if "allOf" in schema:
        return _kind(schema["allOf"][0])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    name = schema.get("format") or schema.get("type", "any")
    if name == "array":
        name = f"list of {_kind(schema.get('items', {}))}"
    elif isinstance(schema.get("additionalProperties"), dict):
        name = f"object of {_kind(schema['additionalProperties'])}"
    bounds = [words.format(schema[key]) for key, words in _RANGES.items() if key in schema]
    return f"{name} ({', '.join(bounds)})" if bounds else str(name)


def _example(document: Json, schema: Json) -> Any:
    """What an answer looks like, made of the examples of its members."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _example(document, document["components"]["schemas"][name])
    if schema.get("examples"):
        return schema["examples"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return _example(document, schema[several][0])
    if schema.get("type") == "array":
        return [_example(document, schema["items"])]
    if "enum" in schema:
        return schema["enum"][0]
    needed = schema.get("required", ())
    members = schema.get("properties", {}).items()
    return {name: _example(document, one) for name, one in members if name in needed}


def _curl(path: str, body: Json) -> str:
    return (
        f'curl -s {_MADE_UP}{path} -H "Authorization: Bearer $KEY" \\\n'
        f"  -H 'Content-Type: application/json' -d '{json.dumps(body, ensure_ascii=False)}'"
    )


# --- Markdown -------------------------------------------------------------------------------------


def markdown(document: Json) -> str:
    """The reference as docs/api.md."""
    parts = [_markdown(block) for block in blocks(document)]
    note = "<!-- Made by `gateway openapi --markdown`; not to be edited. -->"
    return "\n\n".join([note, *parts]) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Code(language, text):
            return f"```{language}\n{text}\n```"
        case Table(head, rows):
            lines = [head, ("---",) * len(head), *rows]
            return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- HTML -----------------------------------------------------------------------------------------


def page(document: Json) -> str:
    """The reference as one page. It needs /docs/style.css and nothing else."""
    shown = list(blocks(document))
    links = "\n".join(
        f'<li class="level{block.level}"><a href="#{_anchor(block.text)}">{_escaped(block.text)}'
        "</a></li>"
        for block in shown
        if isinstance(block, Heading) and block.level in {2, 3}
    )
    body = "\n".join(_html(block) for block in shown)
    title = _escaped(document["info"]["title"])
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}: the API</title>\n"
        '<link rel="stylesheet" href="/docs/style.css">\n</head>\n<body>\n'
        f'<nav aria-label="Contents">\n<ul>\n{links}\n</ul>\n</nav>\n'
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f'<h{level} id="{_anchor(text)}">{_escaped(text)}</h{level}>'
        case Text(text):
            return "\n".join(f"<p>{_inline(one)}</p>" for one in text.split("\n\n"))
        case Code(_, text):
            return f'<pre tabindex="0"><code>{_escaped(text)}</code></pre>'
        case Table(head, rows):
            above = "".join(f'<th scope="col">{_inline(one)}</th>' for one in head)
            below = "\n".join(
                f"<tr>{''.join(f'<td>{_inline(one)}</td>' for one in row)}</tr>" for row in rows
            )
            return (
                f'<div class="wide" tabindex="0">\n<table>\n<thead><tr>{above}</tr></thead>\n'
                f"<tbody>\n{below}\n</tbody>\n</table>\n</div>"
            )


def _inline(text: str) -> str:
    """`code`, **strong** and [links](#within), everything else escaped."""
    made = []
    for number, part in enumerate(text.split("`")):
        if number % 2:
            made.append(f"<code>{_escaped(part)}</code>")
            continue
        safe = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", _escaped(part))
        made.append(re.sub(r"\[(\w+)\]\(#([\w-]+)\)", r'<a href="#\2">\1</a>', safe))
    return "".join(made)


def _anchor(text: str) -> str:
    """As Markdown renderers name headings: lower case, no punctuation, dashes for blanks."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def _escaped(text: str) -> str:
    return html.escape(text)
