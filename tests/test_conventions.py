"""What reviewers would otherwise have to look for: style.md, rule 20."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.domain import errors
from gateway.domain.errors import GatewayError
from gateway.providers import PROVIDERS
from gateway.web.errors import STATUS

Node = TypeVar("Node", bound=ast.AST)

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "gateway").rglob("*.py"))
EVERYWHERE = sorted(
    path
    for folder in ("gateway", "tests", "scripts", "migrations")
    for path in (ROOT / folder).rglob("*.py")
)
SCRIPTS = sorted(
    {path.name for path in (ROOT / "scripts").iterdir()} - {"README.md", "__pycache__"}
)
CHANGES_ATTEMPTS = re.compile(
    r"\b(?:update|insert\s+(?:or\s+\w+\s+)?into|replace\s+into)\s+attempt\b", re.IGNORECASE
)

LONGEST = 400  # lines, without a reason at the top
NAMELESS = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "base", "misc"}
CLOCKS = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "time.time",
    "time.time_ns",
}
# Who may look at a clock, and why.
CLOCKED = {
    "gateway/app/clock.py": "the one place from which `now` comes",
    "gateway/log.py": "stamps the lines",
}


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def nodes(path: Path, kind: type[Node]) -> Iterator[Node]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, kind))


def test_every_module_says_what_is_in_it() -> None:
    assert [] == [shown(path) for path in MODULES if not ast.get_docstring(tree_of(path))]


def test_a_long_module_gives_its_reason_at_the_top() -> None:
    """In its docstring, with the word `lines`."""
    long = [
        path for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST
    ]

    assert [] == [
        shown(path) for path in long if "lines" not in (ast.get_docstring(tree_of(path)) or "")
    ]


def test_every_module_has_a_name_that_tells_something() -> None:
    assert [] == [
        shown(path)
        for path in EVERYWHERE
        if {path.stem, *path.relative_to(ROOT).parts[:-1]} & NAMELESS
    ]


def test_nobody_but_the_clock_looks_at_a_clock() -> None:
    """The linter bans two spellings; this looks for all of them, and for the ban being lifted."""
    looking = {
        shown(path)
        for path in MODULES
        for node in nodes(path, ast.Attribute)
        if ".".join(ast.unparse(node).split(".")[-2:]) in CLOCKS
    } | {
        shown(path)
        for path in MODULES
        for node in nodes(path, ast.ImportFrom)
        for alias in node.names
        if node.module == "time" and alias.name.startswith("time")
    }

    assert set(CLOCKED) == looking


def changes_to_attempts(path: Path) -> list[str]:
    """Updates of the table by a Core statement, and anything written into it in SQL."""
    updates = [
        ast.unparse(call)
        for call in nodes(path, ast.Call)
        if ast.unparse(call.func).split(".")[-1] == "update"
        and any("attempt" in ast.unparse(argument).lower() for argument in call.args)
    ]
    return updates + CHANGES_ATTEMPTS.findall(path.read_text(encoding="utf-8"))


def test_only_writes_changes_attempts() -> None:
    """A state changes in `store/writes.move` alone."""
    found = {shown(path): changes for path in MODULES if (changes := changes_to_attempts(path))}

    assert {"gateway/store/writes.py": ["update(ATTEMPT)"]} == found


def test_the_statements_that_change_a_state_are_run_by_move_alone() -> None:
    tree = tree_of(ROOT / "gateway/store/writes.py")
    plain = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    makers = {node.name for node in plain if "update(ATTEMPT)" in ast.unparse(node)}
    while more := {node.name for node in plain if makers & names_in(node)} - makers:
        makers |= more
    updating = makers | {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and makers & names_in(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    users = {
        node.name
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef) and updating & names_in(node)
    }

    assert makers < updating
    assert {"move"} == users


def names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_nobody_takes_a_private_statement_from_writes() -> None:
    taken = [
        (shown(path), alias.name)
        for path in MODULES
        for node in nodes(path, ast.ImportFrom)
        for alias in node.names
        if node.module == "gateway.store.writes" and alias.name.startswith("_")
    ]

    assert [] == taken


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_has_its_tests(name: str) -> None:
    assert (ROOT / "tests" / "providers" / f"test_{name}.py").is_file()


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_says_what_it_can_confirm(name: str) -> None:
    rows = (ROOT / "gateway/providers/README.md").read_text(encoding="utf-8").splitlines()

    assert any(row.startswith(f"| `{name}`") for row in rows)


def test_every_provider_file_is_a_provider() -> None:
    files = {path.stem for path in (ROOT / "gateway" / "providers").glob("*.py")} - {"__init__"}

    assert set(PROVIDERS) == files


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        (name, setting)
        for name, provider in PROVIDERS.items()
        for setting in provider.Settings.__dataclass_fields__
    ],
)
def test_every_setting_of_a_provider_is_explained(name: str, setting: str) -> None:
    text = (ROOT / "gateway/providers/README.md").read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if row.startswith("| `")]

    assert any(f"`{setting}`" in row.split("|")[1] for row in rows)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_explained(name: str) -> None:
    text = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8")

    assert f"`{name}" in text


LEAVES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, GatewayError) and kind is not GatewayError
]


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_error_has_its_http_status(kind: type[GatewayError]) -> None:
    assert 400 <= STATUS[kind] < 600


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_tree_that_is_drawn(kind: type[GatewayError]) -> None:
    assert f"── {kind.__name__} " in (errors.__doc__ or "")


def test_no_two_errors_share_a_status() -> None:
    assert len(LEAVES) == len(set(STATUS.values()))


def test_the_linter_is_silenced_with_a_reason() -> None:
    """Each rule that is switched off for the whole project says why."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ignored = text.partition("ignore = [")[2].partition("]")[0].strip().splitlines()

    assert [] == [line for line in ignored if "#" not in line]
