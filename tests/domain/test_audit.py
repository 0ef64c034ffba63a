"""The chain of the audit log: whatever is done to a row of it shows."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fakes import START

from gateway.domain import audit
from gateway.domain.audit import Act, Chain, Entry


def rows(count: int = 4) -> list[Entry]:
    made: list[Entry] = []
    for number in range(count):
        act = Act("alice", "look", f"row {number}", "because", str(number))
        made.append(audit.entry(act, made[-1] if made else None, START))
    return made


def test_a_whole_chain_has_nothing_wrong() -> None:
    chain = Chain()

    assert [] == chain.follow(rows())
    assert (4, f"4:{rows()[-1].digest.hex()}") == (chain.rows, chain.head)


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "bob"},
        {"action": "cancel"},
        {"what": "something else"},
        {"why": ""},
        {"subject": None},
        {"at": START + timedelta(milliseconds=1)},
    ],
)
def test_any_fact_that_was_altered_shows(change: dict[str, Any]) -> None:
    altered = rows()
    altered[1] = replace(altered[1], **change)

    assert ["row 2 was altered"] == Chain().follow(altered)


def test_an_altered_row_with_a_digest_that_fits_it_shows_in_the_next() -> None:
    altered = rows()
    forged = replace(altered[1], why="another reason")
    altered[1] = replace(forged, digest=forged.expected())

    assert ["row 3 does not name the row before it"] == Chain().follow(altered)


@pytest.mark.parametrize(
    ("at", "wrong"), [(0, "rows 1 to 1 are missing"), (2, "rows 3 to 3 are missing")]
)
def test_a_removed_row_shows(at: int, wrong: str) -> None:
    left = rows()
    del left[at]

    assert [wrong] == Chain().follow(left)


def test_rows_may_come_in_several_parts() -> None:
    chain, whole = Chain(), rows()

    assert [] == [*chain.follow(whole[:3]), *chain.follow(whole[3:])]


def test_facts_cannot_move_from_one_column_to_the_next() -> None:
    one = audit.entry(Act("alice", "look", "ab", "c"), None, START)
    other = audit.entry(Act("alice", "look", "a", "bc"), None, START)

    assert one.digest != other.digest
