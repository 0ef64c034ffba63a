"""The keyring's file: made once, read by its owner alone, rotated and re-indexed without loss."""

import base64
import json
import stat
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway.app import keyring_file
from gateway.config import SettingsError
from gateway.domain.keyring import KEY_BYTES

ROW: Any = (UUID(int=1), b"salt", 6)  # what a code is made of


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    return tmp_path / "keyring.json"


def refusal(file: Path) -> str:
    with pytest.raises(SettingsError) as refused:
        keyring_file.load(file)
    assert [str(file)] == list(refused.value.mistakes)
    return refused.value.mistakes[str(file)]


def test_a_keyring_is_made_on_the_first_start(ring: Path) -> None:
    made = keyring_file.load(ring, create=True)

    assert ("k1", ("k1",)) == (made.current, made.names)


def test_a_keyring_is_made_once(ring: Path) -> None:
    made, again = (keyring_file.load(ring, create=True) for _ in range(2))

    assert made.index("phone", "+33612345678") == again.index("phone", "+33612345678")


def test_two_keyrings_are_two(tmp_path: Path) -> None:
    one, other = (
        keyring_file.load(tmp_path / name, create=True).index("phone", "+33612345678")
        for name in ("one.json", "other.json")
    )

    assert one != other


def test_a_keyring_is_readable_by_its_owner_alone(ring: Path) -> None:
    keyring_file.load(ring, create=True)

    assert 0o600 == stat.S_IMODE(ring.stat().st_mode)


def test_a_keyring_is_readable_by_its_owner_alone_whatever_a_crash_left_behind(ring: Path) -> None:
    left = ring.with_suffix(".new")
    left.touch(mode=0o666)
    left.chmod(0o666)
    keyring_file.load(ring, create=True)

    assert 0o600 == stat.S_IMODE(ring.stat().st_mode)


def test_making_a_keyring_leaves_nothing_beside_it(ring: Path) -> None:
    keyring_file.load(ring, create=True)

    assert [ring] == list(ring.parent.iterdir())


def test_without_leave_no_keyring_is_made(ring: Path) -> None:
    assert refusal(ring).startswith("there is no keyring")


def test_a_keyring_in_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "keyring.json"
    with pytest.raises(SettingsError) as refused:
        keyring_file.load(file, create=True)

    assert [str(file)] == list(refused.value.mistakes)


def test_a_keyring_that_is_a_folder_is_named(ring: Path) -> None:
    ring.mkdir()

    assert "cannot be read or written: Is a directory" == refusal(ring)


KEY = base64.b64encode(b"k" * KEY_BYTES).decode()
SHORT = base64.b64encode(b"k" * 5).decode()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "17",
        "{}",
        '"keyring"',
        json.dumps({"current": "k1", "keys": {"k1": KEY}}),
        json.dumps({"current": "k1", "keys": {"k1": KEY}, "index_key": None}),
        json.dumps({"current": "k1", "keys": {"k1": KEY}, "index_key": SHORT}),
        json.dumps({"current": "k2", "keys": {"k1": KEY}, "index_key": KEY}),
        json.dumps({"current": ["k1"], "keys": {"k1": KEY}, "index_key": KEY}),
        json.dumps({"current": "k1", "keys": {"k1": SHORT}, "index_key": KEY}),
        json.dumps({"current": "k1", "keys": {"k1": "not base64!"}, "index_key": KEY}),
        json.dumps({"current": "k1", "keys": {"k1": 17}, "index_key": KEY}),
        json.dumps({"current": "k1", "keys": [KEY], "index_key": KEY}),
        json.dumps({"current": "k1", "keys": {}, "index_key": KEY}),
    ],
)
def test_a_broken_keyring_is_named(ring: Path, body: str) -> None:
    """And never replaced: it may hold the only key to what is stored."""
    ring.write_text(body, encoding="utf-8")

    assert refusal(ring).startswith("is not a keyring: ")


def test_a_broken_keyring_is_not_made_anew(ring: Path) -> None:
    ring.write_text("{", encoding="utf-8")
    with pytest.raises(SettingsError):
        keyring_file.load(ring, create=True)

    assert "{" == ring.read_text(encoding="utf-8")


def test_a_broken_keyring_does_not_show_its_keys(ring: Path) -> None:
    ring.write_text(
        json.dumps({"current": "k2", "keys": {"k1": KEY}, "index_key": KEY}), encoding="utf-8"
    )

    assert KEY not in refusal(ring)


def test_a_rotation_makes_a_new_key_the_current_one(ring: Path) -> None:
    keyring_file.load(ring, create=True)
    names = [keyring_file.rotate(ring), keyring_file.rotate(ring)]
    now = keyring_file.load(ring)

    assert (["k2", "k3"], "k3", ("k1", "k2", "k3")) == (names, now.current, now.names)


def test_a_rotation_keeps_what_was_sealed_before_readable(ring: Path) -> None:
    before = keyring_file.load(ring, create=True)
    sealed = before.seal("k1", b"+33612345678", owner=b"row", nonce=b"n" * 12)
    keyring_file.rotate(ring)

    assert b"+33612345678" == keyring_file.load(ring).open("k1", sealed, owner=b"row")


def test_a_rotation_leaves_the_index_key(ring: Path) -> None:
    before = keyring_file.load(ring, create=True)
    keyring_file.rotate(ring)

    assert before.index("phone", "1") == keyring_file.load(ring).index("phone", "1")


def test_a_rotation_counts_on_from_the_highest_name(ring: Path) -> None:
    body = {"current": "own", "keys": {"own": KEY, "k9": KEY, "k10": KEY}, "index_key": KEY}
    ring.write_text(json.dumps(body), encoding="utf-8")

    assert "k11" == keyring_file.rotate(ring)


@pytest.mark.parametrize("body", [None, "{", "{}"])
def test_a_keyring_that_is_none_cannot_be_rotated(ring: Path, body: str | None) -> None:
    if body is not None:
        ring.write_text(body, encoding="utf-8")

    with pytest.raises(SettingsError):
        keyring_file.rotate(ring)


def test_another_index_key_takes_the_place_of_the_old_one_and_of_nothing_else(ring: Path) -> None:
    before = keyring_file.load(ring, create=True)
    keyring_file.rotate(ring)
    keyring_file.replace_index_key(ring, b"x" * KEY_BYTES)
    now = keyring_file.load(ring)

    assert before.index("phone", "1") != now.index("phone", "1")
    assert (before.code("k1", *ROW), "k2") == (now.code("k1", *ROW), now.current)


# Another index key, in three steps.


def test_a_proposed_index_key_leaves_the_keyring_as_it_is(ring: Path) -> None:
    before = keyring_file.load(ring, create=True)
    keyring_file.propose_index_key(ring)

    assert before.index("phone", "1") == keyring_file.load(ring).index("phone", "1")


def test_a_proposed_index_key_lies_beside_with_the_same_keys(ring: Path) -> None:
    before = keyring_file.load(ring, create=True)
    keyring_file.propose_index_key(ring)
    proposed = keyring_file.load(keyring_file.proposed(ring))

    assert before.index("phone", "1") != proposed.index("phone", "1")
    assert before.code("k1", *ROW) == proposed.code("k1", *ROW)


def test_a_proposed_index_key_is_readable_by_its_owner_alone(ring: Path) -> None:
    keyring_file.load(ring, create=True)
    keyring_file.propose_index_key(ring)

    assert 0o600 == stat.S_IMODE(keyring_file.proposed(ring).stat().st_mode)


def test_an_adopted_index_key_is_the_proposed_one(ring: Path) -> None:
    keyring_file.load(ring, create=True)
    keyring_file.propose_index_key(ring)
    proposed = keyring_file.load(keyring_file.proposed(ring))
    keyring_file.adopt_index_key(ring)

    assert proposed.index("phone", "1") == keyring_file.load(ring).index("phone", "1")
    assert [ring] == list(ring.parent.iterdir())


def test_keys_rotated_in_meanwhile_are_kept(ring: Path) -> None:
    keyring_file.load(ring, create=True)
    keyring_file.propose_index_key(ring)
    keyring_file.rotate(ring)
    keyring_file.adopt_index_key(ring)

    assert ("k1", "k2") == keyring_file.load(ring).names


def test_a_forgotten_index_key_leaves_no_trace(ring: Path) -> None:
    before = keyring_file.load(ring, create=True)
    keyring_file.propose_index_key(ring)
    keyring_file.forget_index_key(ring)

    assert before.index("phone", "1") == keyring_file.load(ring).index("phone", "1")
    assert [ring] == list(ring.parent.iterdir())


def test_nothing_proposed_is_nothing_to_forget(ring: Path) -> None:
    keyring_file.load(ring, create=True)
    keyring_file.forget_index_key(ring)

    assert [ring] == list(ring.parent.iterdir())
