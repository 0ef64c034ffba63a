"""The guides do what they say: every `sh` block of docs/guides is run as it stands, by a shell and
curl, against a gateway on a socket; the `http` block after it is what has to come back. In a block
`…` stands for anything, and a member named `…` for further ones.
"""

import asyncio
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from acceptance.standing import Standing, standing

from gateway.web import openapi
from gateway.web.codes import CODES

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted(path for path in (ROOT / "docs/guides").glob("*.md") if path.name != "README.md")
WRITTEN = "http://127.0.0.1:8080"  # where the guides' gateway listens
MARK = "\x1e"  # between the output of two blocks
ANY = "…"


@dataclass(frozen=True)
class Step:
    """A block of commands, and the answer printed after it, if one is."""

    command: str
    answer: str | None


def steps(text: str) -> list[Step]:
    """The blocks of a page in their order."""
    blocks = re.findall(r"^```(sh|http)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = []
    for at, (kind, block) in enumerate(blocks):
        following = blocks[at + 1] if at + 1 < len(blocks) else ("", "")
        if kind == "sh":
            found.append(Step(block, following[1] if following[0] == "http" else None))
    return found


async def played(found: list[Step], gateway: Standing) -> list[str]:
    """What each block printed. One shell runs them all, so that one can use what another kept."""
    script = "".join(f"{step.command}\nprintf '\\036'\n" for step in found)
    process = await asyncio.create_subprocess_exec(
        *("sh", "-eu", "-c", script.replace(WRITTEN, gateway.url)),
        env={"KEY": gateway.key, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, wrong = await process.communicate()
    assert (0, "") == (process.returncode, wrong.decode())
    return said.decode().split(MARK)[:-1]


def mistakes(written: str, said: str) -> list[str]:
    """In what an answer is not the one that is written."""
    head, _, body = written.partition("\n\n")
    got_head, _, got_body = said.replace("\r\n", "\n").partition("\n\n")
    status, *headers = head.splitlines()
    got_status, *got_headers = got_head.splitlines()
    wrong = [] if status == got_status else [f"{status}: {got_status} {got_body}"]
    wrong += [
        f"no header {one}" for one in headers if not any(_like(one, got) for got in got_headers)
    ]
    return [*wrong, *_differences("", json.loads(body), json.loads(got_body))]


def _differences(place: str, written: Any, got: Any) -> list[str]:
    if isinstance(written, dict) and isinstance(got, dict):
        wrong = [f"{place}.{name} is missing" for name in written.keys() - got.keys() - {ANY}]
        if ANY not in written:
            wrong += [f"{place}.{name} is not written" for name in got.keys() - written.keys()]
        both = written.keys() & got.keys()
        return wrong + [
            one
            for name in both
            for one in _differences(f"{place}.{name}", written[name], got[name])
        ]
    if isinstance(written, list) and isinstance(got, list) and len(written) == len(got):
        pairs = enumerate(zip(written, got, strict=True))
        return [one for at, pair in pairs for one in _differences(f"{place}[{at}]", *pair)]
    same = _like(written, got) if isinstance(written, str) else written == got
    return [] if same else [f"{place}: {written!r} is written, {got!r} came"]


def _like(written: str, got: Any) -> bool:
    """`…` stands for anything but nothing."""
    form = ".+".join(map(re.escape, written.split(ANY)))
    return isinstance(got, str) and re.fullmatch(form, got) is not None


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guides use curl, which is not here")
async def test_every_guide_does_what_it_says(tmp_path: Path) -> None:
    wrong = []
    async with standing(tmp_path) as gateway:
        for guide in GUIDES:
            found = steps(guide.read_text(encoding="utf-8"))
            for step, said in zip(found, await played(found, gateway), strict=True):
                if step.answer is None:
                    assert "" == said, f"{guide.name}: an answer that is not printed: {said}"
                else:
                    wrong += [f"{guide.name}: {one}" for one in mistakes(step.answer, said)]

    assert [] == wrong


def test_an_answer_that_is_another_is_noticed() -> None:
    said = 'HTTP/1.1 200 OK\r\nx: 1\r\n\r\n{"a": 1, "b": ["x", {"c": null}]}'
    head = "HTTP/1.1 200 OK\nx: …\n\n"

    assert [] == mistakes(head + '{"a": 1, "b": ["…", {"c": null}]}', said)
    assert [] == mistakes(head + '{"a": 1, "…": "…"}', said)
    for other in ('{"a": 2, "…": "…"}', '{"a": 1}', '{"d": 1, "…": "…"}', '{"b": ["x"], "…": "…"}'):
        assert [] != mistakes(head + other, said)
    assert [] != mistakes("HTTP/1.1 202 Accepted\n\n" + '{"…": "…"}', said)
    assert [] != mistakes("HTTP/1.1 200 OK\ny: …\n\n" + '{"…": "…"}', said)


def known() -> set[str]:
    """Every name of the API."""
    described = openapi.document(openapi.everything())
    schemas = described["components"]["schemas"].values()
    fields = {name for schema in schemas for name in schema.get("properties", ())}
    return fields | CODES.keys()


def here(text: str) -> list[str]:
    """The cells of every table's column `here`."""
    cells, column = [], None
    for line in text.splitlines():
        row = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|"):
            column = None
        elif "here" in row:
            column = row.index("here")
        elif column is not None:
            cells.append(row[column])
    return cells


def test_every_field_that_a_guide_leads_to_exists() -> None:
    """Words with an underscore, which are fields, problems or parts of a path."""
    cells = [(guide.name, cell) for guide in GUIDES for cell in here(guide.read_text("utf-8"))]
    named = [
        (guide, word)
        for guide, cell in cells
        for quoted in re.findall(r"`([^`]+)`", cell)
        for word in re.findall(r"(?<![/<])\b[a-z]+(?:_[a-z]+)+\b", quoted)
    ]

    assert 50 < len(cells)
    assert [] == [(guide, word) for guide, word in named if word not in known()]


def test_every_guide_is_listed() -> None:
    listed = (ROOT / "docs/guides/README.md").read_text(encoding="utf-8")

    assert [path.name for path in GUIDES] == sorted(
        re.findall(r"\((\S+\.md)\)", listed.partition("Every")[0])
    )
    assert "(docs/guides/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_link_leads_somewhere() -> None:
    for page in (ROOT / "docs/guides").glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
