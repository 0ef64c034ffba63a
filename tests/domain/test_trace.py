"""The traceparent header, by the examples and rules of W3C Trace Context."""

import pytest

from gateway.domain import trace

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("header", "read"),
    [
        (GIVEN, GIVEN),
        (f" {GIVEN} ", GIVEN),
        (GIVEN.replace("-01", "-03"), GIVEN),  # a flag of later versions
        (f"cc{GIVEN[2:]}-what-the-future-says", GIVEN),
    ],
)
def test_a_sampled_trace_is_read(header: str, read: str) -> None:
    assert read == trace.parse(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",  # not sampled
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        f"{GIVEN}-more",
        GIVEN[:-1],
        f"{GIVEN}\n{GIVEN}",
        "\u0660\u0660-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ],
)
def test_anything_else_is_none(header: str | None) -> None:
    assert trace.parse(header) is None
