"""docs/providers.md is what the providers say of themselves, and the tests it names are there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import sheets
from gateway.providers import PROVIDERS

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "providers"


def test_the_page_is_current() -> None:
    """Else: gateway routes sheets > docs/providers.md."""
    assert sheets.markdown() == (ROOT / "docs" / "providers.md").read_text("utf-8")


def test_the_command_prints_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "routes", "sheets"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert sheets.markdown() == done.stdout


def test_every_provider_is_on_it() -> None:
    assert set(PROVIDERS) == {kind for kind, _, _ in sheets.tests()}


def methods(tree: ast.Module, name: str) -> set[str]:
    """The tests of a class and of its bases, as far as they are in this module or the runner."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            own = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            return own.union(*(methods(tree, base) or runner(base) for base in bases))
    return set()


def runner(name: str) -> set[str]:
    return methods(ast.parse((TESTS / "cases.py").read_text("utf-8")), name)


@pytest.mark.parametrize(("kind", "what", "test"), sorted(sheets.tests()))
def test_every_test_it_names_is_there(kind: str, what: str, test: str) -> None:
    file, *path = test.split("::")
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}

    assert path[-1] in (functions if len(path) == 1 else methods(tree, path[0]))
