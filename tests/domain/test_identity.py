"""Ids: UUIDv7, ordered by time."""

import itertools
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import pytest
from fakes import START
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.identity import EPOCH, Entropy, parse, uuid7

moments = st.datetimes(
    datetime(1970, 1, 1),  # noqa: DTZ001  Hypothesis wants naive bounds
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
entropies = st.binary(min_size=10, max_size=10)


@given(moments, entropies)
def test_an_id_is_of_version_seven(now: datetime, entropy: bytes) -> None:
    assert 7 == uuid7(now, entropy).version


@given(moments, entropies)
def test_an_id_is_of_the_variant_of_rfc_9562(now: datetime, entropy: bytes) -> None:
    assert RFC_4122 == uuid7(now, entropy).variant


@given(moments, moments, entropies, entropies)
def test_ids_are_ordered_by_time(
    one: datetime, other: datetime, entropy: bytes, more: bytes
) -> None:
    earlier, later = sorted((one, other))
    apart = later - earlier >= timedelta(milliseconds=1)

    assert not apart or uuid7(earlier, entropy).bytes < uuid7(later, more).bytes


@given(moments, entropies)
def test_an_id_tells_its_millisecond(now: datetime, entropy: bytes) -> None:
    told = EPOCH + timedelta(milliseconds=uuid7(now, entropy).int >> 80)

    assert timedelta(0) <= now - told < timedelta(milliseconds=1)


def test_the_sample_of_the_standard_comes_out() -> None:
    """RFC 9562, A.6: 2022-02-22 19:22:22.000 UTC, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F."""
    now = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)
    random = 0xCC3 << 64 | 0x18C4DC0C0C07398F

    assert UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f") == uuid7(now, random.to_bytes(10, "big"))


@given(st.sets(st.integers(0, 2**74 - 1), min_size=2, max_size=50))
def test_different_entropy_gives_different_ids(numbers: set[int]) -> None:
    spread = [number >> 62 << 64 | number & (1 << 62) - 1 for number in numbers]
    made = {uuid7(START, entropy.to_bytes(10, "big")) for entropy in spread}

    assert len(numbers) == len(made)


@given(st.lists(st.integers(1, 300), max_size=20))
def test_no_random_byte_is_given_out_twice(sizes: list[int]) -> None:
    """Not where a page ends either. In blocks of eight bytes, of which no two are alike."""
    numbers = itertools.count()
    entropy = Entropy(lambda size: b"".join(next(numbers).to_bytes(8) for _ in range(size // 8)))
    taken = b"".join(entropy(8 * size) for size in sizes)
    blocks = {taken[at : at + 8] for at in range(0, len(taken), 8)}

    assert sum(sizes) == len(blocks)


@given(st.uuids())
def test_an_id_is_read_as_it_is_written(named: UUID) -> None:
    assert named == parse(str(named))


def test_capital_letters_are_read_too() -> None:
    named = UUID("0190abcd-0000-7000-8000-00000000abcd")

    assert named == parse(str(named).upper())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0190abcd00007000800000000000abcd",
        "{0190abcd-0000-7000-8000-00000000abcd}",
        "urn:uuid:0190abcd-0000-7000-8000-00000000abcd",
        "urn:0190abcd00007000800000000000abcd",
        "0190abcd-0000-7000-8000-00000000abc",
        "0190abcd-0000-7000-8000-00000000abcg",
        "----0190abcd00007000800000000000abcd",
        "{}{}0190abcd00007000800000000000abcd",
        "0190_abc-0000-7000-8000-00000000abcd",
        " 190abcd-0000-7000-8000-00000000abcd",
        "+190abcd-0000-7000-8000-00000000abcd",
        "\N{ARABIC-INDIC DIGIT ONE}190abcd-0000-7000-8000-00000000abcd",
        "0190abcd-0000-7000-8000-00000000abcd\n",
    ],
)
def test_only_the_canonical_form_is_an_id(text: str) -> None:
    """Two spellings of one id would be two keys to one row."""
    assert parse(text) is None
