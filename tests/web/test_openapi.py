"""/openapi.json, /docs and docs/api.md say what is served, all of it and nothing else."""

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest
from contract import BEYOND, CONTRACT, hold
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel
from rig import Rig
from starlette.routing import Route
from typer.testing import CliRunner

from gateway import cli
from gateway.domain import errors as refusals
from gateway.domain.errors import GatewayError
from gateway.web import answers, errors, openapi, schemas
from gateway.web.codes import CODES
from gateway.web.documents import Documents
from gateway.web.operations import OPERATIONS, Json

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = CONTRACT.document
KINDS = {
    name: kind
    for name, kind in vars(refusals).items()
    if isinstance(kind, type) and issubclass(kind, GatewayError) and kind is not GatewayError
}
# What the console tells people, in pages of its own.
PAGES = (
    "gateway/domain/access.py",
    "gateway/domain/oidc.py",
    "gateway/services/accounts.py",
    "gateway/services/oidc.py",
    "gateway/web/console/",
)
PASSED_ON = {"gateway/web/recipients.py": "error.code"}  # a refusal told again, with its field


# --- The document ---------------------------------------------------------------------------------


def test_it_is_openapi() -> None:
    assert [] == [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()]


async def test_the_gateway_publishes_all_that_it_serves_and_nothing_else(rig: Rig) -> None:
    published = (await rig.http.get("/openapi.json")).json()
    edge: Any = rig.gateway.web
    served: dict[str, Any] = {**edge._calls, **dict(edge._below)}
    served |= {
        route.path: route.methods
        for route in edge._app.routes
        if isinstance(route, Route)
        and route.include_in_schema
        and not route.path.startswith("/console")
    }

    assert [] == openapi.undescribed(served)
    assert orjson.loads(orjson.dumps(openapi.document(served))) == published
    assert orjson.loads(orjson.dumps(DOCUMENT)) == published


def test_what_is_not_served_is_not_published() -> None:
    few = openapi.document({"/otp/send": {"POST"}, "/otp/status": {"GET"}})

    assert {"/otp/send": ["post"], "/otp/status": ["get"]} == {
        path: list(methods) for path, methods in few["paths"].items()
    }


def test_what_is_not_described_is_told() -> None:
    served = {"/otp/send": ["POST", "PUT"], "/new": ["GET", "HEAD"]}

    assert ["PUT /otp/send", "GET /new"] == openapi.undescribed(served)


def fields(document: Json) -> Iterator[tuple[str, Json]]:
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            yield f"{name}.{field}", described


def test_every_field_is_described_and_has_an_example() -> None:
    bare = [
        name
        for name, field in fields(DOCUMENT)
        if not field.get("description") or not ("examples" in field or _of_objects(field))
    ]

    assert [] == bare


def _of_objects(field: Json) -> bool:
    """A list of objects, or null: the objects have the examples."""
    kinds = field.get("anyOf", [field])
    return any("$ref" in str(one.get("items")) for one in kinds)


def test_every_example_is_valid() -> None:
    wrong = []
    for name, field in fields(DOCUMENT):
        whole = {**field, "components": DOCUMENT["components"]}
        for example in field.get("examples", ()):
            wrong += [
                f"{name}: {error.message}"
                for error in Draft202012Validator(whole).iter_errors(example)
            ]

    assert [] == wrong


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/otp/send", schemas.SendBody),
        ("/otp/status", schemas.StatusBody),
        ("/otp/verify", schemas.VerifyBody),
        ("/otp/cancel", schemas.WhichBody),
        ("/otp/next", schemas.WhichBody),
    ],
)
def test_every_example_of_a_body_is_taken(path: str, model: type[BaseModel]) -> None:
    body = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]

    assert body["examples"]
    for example in body["examples"].values():
        model.model_validate_json(orjson.dumps(example["value"]))


def test_a_call_without_a_key_says_so() -> None:
    open_calls = {
        path
        for path, methods in DOCUMENT["paths"].items()
        for call in methods.values()
        if not call["security"]
    }

    assert {path for path in DOCUMENT["paths"] if not _keyed(path)} == open_calls


def _keyed(path: str) -> bool:
    return path.startswith("/otp/") and not path.startswith("/otp/delivered")


# --- Problem codes --------------------------------------------------------------------------------


def raised() -> Iterator[tuple[str, int, str]]:
    """Code, status and place of every refusal in the sources."""
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = str(path.relative_to(ROOT))
        if place.startswith(PAGES):
            continue
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for name, first in _refusals(tree):
            status = errors.STATUS[KINDS[name]]
            code = first
            if isinstance(code, ast.Starred):
                code = code.value
            if isinstance(code, ast.Name):
                code = constants.get(code.id, code)
            if isinstance(code, ast.Tuple):
                code = code.elts[0]
            if isinstance(code, ast.Constant):
                yield str(code.value), status, place
            elif PASSED_ON.get(place) != ast.unparse(code):
                yield f"? {ast.unparse(code)}", status, place


def _refusals(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "gateway.domain.errors"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        name = ast.unparse(node.func)
        if name in imported & KINDS.keys() and ast.unparse(node.args[0]) != "code":
            yield name, node.args[0]
        elif name in {"refuse", "limits.refuse"}:  # domain/limits.py: what all limits answer
            yield "Limited", node.args[0]


def test_every_code_is_listed_with_its_status() -> None:
    unlisted = [
        f"{place}: {code} ({status})"
        for code, status, place in raised()
        if code not in CODES or status not in CODES[code].statuses
    ]

    assert [] == unlisted


def test_every_listed_code_is_somewhere_raised() -> None:
    used = {(code, status) for code, status, _ in raised()}
    used |= {(code, status) for status, (code, _) in errors._HTTP.items()}
    used |= {("internal_error", 500)}

    assert used == {(code, status) for code, one in CODES.items() for status in one.statuses}


def test_every_code_belongs_to_a_call() -> None:
    listed = {
        code.partition(":")[0] for operation in OPERATIONS.values() for code in operation.problems
    }

    assert CODES.keys() - BEYOND <= listed


def test_the_readme_lists_the_same_codes() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("### Errors")[2]
    table = table.partition("\nProbes:")[0]

    assert CODES.keys() == CODES.keys() & set(re.findall(r"`(\w+)`", table))


# --- Answers --------------------------------------------------------------------------------------


async def test_an_answer_that_is_not_as_described_is_noticed(rig: Rig) -> None:
    """The rig's caller holds every answer of every test against the document."""
    answer = await rig.call("/otp/send", {"to": "+33612345678"})
    body = answer.json()

    def with_body(changed: Any) -> list[str]:
        answer._content = orjson.dumps(changed)
        return CONTRACT.mistakes(answer)

    assert [hold] == rig.http.event_hooks["response"]
    assert [] == with_body(body)
    assert [] != with_body({**body, "new": 1})
    assert [] != with_body({**body, "checks_left": "5"})
    assert [] != with_body({name: one for name, one in body.items() if name != "expires_at"})


def test_a_problem_has_the_members_that_it_is_said_to_have() -> None:
    shape = {"type", "title", "status", "code", "detail"}

    assert shape == {
        name for name, field in answers.Problem.model_fields.items() if field.is_required()
    }


# --- For people -----------------------------------------------------------------------------------


class Page(HTMLParser):
    """Names, links and whatever a page would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        self.names += [given["id"] or ""] if "id" in given else []
        self.handlers += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "a":
            self.links.append(given["href"] or "")
        else:
            self.loads += [given[name] or "" for name in ("src", "href") if name in given]


async def test_the_page_needs_nothing_from_elsewhere_and_no_script(rig: Rig) -> None:
    answer = await rig.http.get("/docs")
    page = Page(answer.text)
    policy = answer.headers["content-security-policy"]

    assert "text/html; charset=utf-8" == answer.headers["content-type"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert ["/docs/style.css"] == page.loads
    assert not {"script", "style", "iframe", "img", "form"} & page.tags
    assert [] == page.handlers


async def test_every_link_of_the_page_leads_somewhere(rig: Rig) -> None:
    page = Page((await rig.http.get("/docs")).text)

    assert page.links
    assert set(page.links) <= {f"#{name}" for name in page.names}
    assert len(page.names) == len(set(page.names))


async def test_the_page_shows_every_call_field_and_code(rig: Rig) -> None:
    text = (await rig.http.get("/docs")).text

    for path, methods in DOCUMENT["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}</h3>" in text
    for name, _ in fields(DOCUMENT):
        assert f"<code>{name.partition('.')[2]}</code>" in text
    for code in CODES:
        assert f"<td><code>{code}</code></td>" in text


async def test_the_style_sheet_is_ours_and_loads_nothing(rig: Rig) -> None:
    answer = await rig.http.get("/docs/style.css")

    assert (200, "text/css; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
    assert not re.search(r"url\(|@import|//", answer.text)


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/style.css"])
async def test_who_has_it_is_not_sent_it_again(rig: Rig, path: str) -> None:
    first = await rig.http.get(path)
    again = await rig.http.get(path, headers={"if-none-match": first.headers["etag"]})
    other = await rig.http.get(path, headers={"if-none-match": '"other"'})

    assert [(200, True), (304, False), (200, True)] == [
        (one.status_code, bool(one.content)) for one in (first, again, other)
    ]


def test_the_reference_is_in_step() -> None:
    """If this fails: `scripts/gateway openapi --markdown > docs/api.md`."""
    made = CliRunner().invoke(cli.app, ["openapi", "--markdown"])

    assert (0, (ROOT / "docs/api.md").read_text(encoding="utf-8")) == (made.exit_code, made.stdout)


def test_the_command_prints_the_document() -> None:
    made = CliRunner().invoke(cli.app, ["openapi"])

    assert orjson.loads(orjson.dumps(DOCUMENT)) == orjson.loads(made.stdout)


def test_the_document_is_made_once() -> None:
    documents = Documents({})

    assert documents._json is documents._json
    assert documents._page is documents._page
