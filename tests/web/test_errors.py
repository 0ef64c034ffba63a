"""Refusals: every one is a problem document with a stable code, whoever refuses."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import structlog
from fakes import Clock
from rig import NUMBER, Rig, problem

from gateway import log
from gateway.domain.errors import GatewayError
from gateway.domain.keyring import Keyring
from gateway.store.engine import connect
from gateway.web.api import MAX_BODY
from gateway.web.errors import STATUS

CALLS = ("/otp/send", "/otp/status", "/otp/verify", "/otp/cancel", "/otp/next")


@pytest.fixture
def logs() -> Iterator[io.BytesIO]:
    """What is logged, as production would write it."""
    target = io.BytesIO()
    output = log.configure("info", target)
    output.flush = output.drain  # type: ignore[method-assign]  # no line waits
    yield target
    structlog.reset_defaults()


async def post(rig: Rig, path: str, content: Any, **headers: str) -> httpx.Response:
    """Raw bytes, or an iterator of them, which leaves without a Content-Length."""
    given = {"content-type": "application/json", "authorization": f"Bearer {rig.key}"}
    return await rig.http.post(
        path, content=content, headers=given | {k.replace("_", "-"): v for k, v in headers.items()}
    )


# --- The body -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"to": "+33612345678",}',
        b"{'to': 1}",
        b"to=%2B33612345678",
        b'{"to": "\xff"}',
        b'{"to": "\\ud800"}',
        b"[" * 5000,
        b'{"to": "a"} {"to": "b"}',
        b"\xef\xbb\xbf{}",
    ],
)
async def test_broken_json_is_called_broken(rig: Rig, path: str, raw: bytes) -> None:
    assert {} == problem(await post(rig, path, raw), 400, "broken_json")


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("raw", [b"[]", b"null", b'"to"', b"17", b"true", b'[{"to": "x"}]'])
async def test_json_that_is_no_object_is_refused(rig: Rig, path: str, raw: bytes) -> None:
    facts = problem(await post(rig, path, raw), 400, "invalid_request")

    assert ["(body)"] == [error["field"] for error in facts["errors"]]


@pytest.mark.parametrize("path", CALLS)
async def test_unknown_fields_are_refused_by_name_everywhere(rig: Rig, path: str) -> None:
    answer = await post(rig, path, b'{"wrong": 1, "wrong too": 2}')

    assert {"fields": ["wrong", "wrong too"]} == problem(answer, 400, "unknown_field")


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" * 4000, b"NaN", b"-0.0", b"1.5"])
async def test_no_number_is_too_strange(rig: Rig, number: bytes) -> None:
    answer = await post(rig, "/otp/send", b'{"to": "+33612345678", "ttl": %s}' % number)

    assert 400 == answer.status_code
    assert answer.json()["code"] in {"invalid_request", "broken_json"}


async def test_a_long_name_of_an_unknown_field_is_cut_short(rig: Rig) -> None:
    answer = await post(rig, "/otp/send", orjson.dumps({"x" * 10_000: 1}))

    assert {"fields": ["x" * 64]} == problem(answer, 400, "unknown_field")


@pytest.mark.parametrize("path", CALLS)
async def test_a_body_declared_too_large_is_refused_unread(rig: Rig, path: str) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b" "

    answer = await post(rig, path, body(), content_length=str(MAX_BODY + 1))

    problem(answer, 413, "body_too_large")
    assert 0 == read


@pytest.mark.parametrize("path", CALLS)
async def test_a_body_that_turns_out_too_large_is_not_read_to_its_end(rig: Rig, path: str) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1024
            yield b" " * 1024

    problem(await post(rig, path, body()), 413, "body_too_large")
    assert read <= MAX_BODY + 2048


async def test_a_body_of_just_the_limit_is_read(rig: Rig) -> None:
    body = orjson.dumps({"to": NUMBER, "workflow": "sms"})
    fitting = await post(rig, "/otp/send", body.ljust(MAX_BODY))
    over = await post(rig, "/otp/send", body.ljust(MAX_BODY + 1))

    assert 202 == fitting.status_code
    problem(over, 413, "body_too_large")


# --- Content type, method, path -----------------------------------------------------------------


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "json",
        "application/json+x",
    ],
)
async def test_a_body_not_declared_as_json_is_refused(rig: Rig, path: str, kind: str) -> None:
    assert {} == problem(
        await post(rig, path, b"{}", content_type=kind), 415, "unsupported_media_type"
    )


async def test_a_missing_content_type_is_refused(rig: Rig) -> None:
    headers = {"authorization": f"Bearer {rig.key}"}
    answer = await rig.http.post("/otp/send", content=b"{}", headers=headers)

    problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_json_may_be_declared_in_any_spelling(rig: Rig, kind: str) -> None:
    body = orjson.dumps({"to": NUMBER, "workflow": "sms"})

    assert 202 == (await post(rig, "/otp/send", body, content_type=kind)).status_code


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/otp/send", {"POST"}),
        ("/otp/verify", {"POST"}),
        ("/otp/cancel", {"POST"}),
        ("/otp/next", {"POST"}),
        ("/otp/status", {"GET", "HEAD", "POST"}),
        ("/otp/delivered/octopush/key", {"GET", "HEAD", "POST"}),
        ("/", {"GET", "HEAD"}),
        ("/healthz", {"GET", "HEAD"}),
        ("/readyz", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_answered_with_the_right_ones(
    rig: Rig, path: str, allowed: set[str]
) -> None:
    methods = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - allowed
    answers = [await rig.http.request(method, path) for method in methods]

    for answer in answers:
        assert {} == problem(answer, 405, "method_not_allowed")
        assert allowed == {word.strip() for word in answer.headers["allow"].split(",")}


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/otp", "/otp/", "/otp/sendx", "/OTP/SEND", "/otp/delivered/a/b/c", "/otp//send"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path_is_a_problem_too(rig: Rig, path: str, method: str) -> None:
    assert {} == problem(await rig.http.request(method, path), 404, "no_such_path")


@pytest.mark.parametrize("path", [*CALLS, "/healthz", "/otp/delivered/octopush/callback-key"])
async def test_a_slash_too_many_is_an_unknown_path_and_no_redirect(rig: Rig, path: str) -> None:
    """A redirect would be made from the Host header, would repeat a callback's key in `Location`,
    and a provider that posts a receipt does not follow it."""
    answer = await rig.http.post(f"{path}/", content=b"{}", headers={"host": "evil.example"})

    assert {} == problem(answer, 404, "no_such_path")
    assert "location" not in answer.headers


# --- The table of errors ------------------------------------------------------------------------


def test_every_kind_of_error_has_its_status() -> None:
    assert set(GatewayError.__subclasses__()) == STATUS.keys()


# --- Unavailable --------------------------------------------------------------------------------


@pytest.mark.sqlite
async def test_a_database_that_takes_nothing_is_503_and_nothing_is_sent(rig: Rig) -> None:
    blocker = connect(rig.gateway.settings.database)
    blocker.execute("BEGIN IMMEDIATE")
    rig.sqlite._tries = 2  # instead of five seconds
    try:
        answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})
    finally:
        blocker.close()

    assert {"retry_after": 1} == problem(answer, 503, "storage")
    assert "1" == answer.headers["retry-after"]
    assert [] == rig.transport.submissions
    assert 202 == (await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms"})).status_code


@pytest.mark.sqlite
async def test_a_full_queue_refuses_sends_at_three_quarters_and_receipts_at_the_end(
    rig: Rig,
) -> None:
    """Octopush does not repeat its receipts; whoever sends can send again."""
    sent = await rig.send(workflow="sms")
    (sms,) = rig.transport.submissions
    ledger = rig.gateway.ledger
    ledger._capacity = 8

    async def waiting(*calls: Any, depth: int) -> list[asyncio.Task[httpx.Response]]:
        started = [asyncio.ensure_future(call) for call in calls]
        for _ in range(200):
            await asyncio.sleep(0)
        assert depth == ledger.depth
        return started

    def send(number: int) -> Any:
        return rig.call("/otp/send", {"to": f"+336123400{number:02}"})

    def receipt(word: str) -> Any:
        return rig.octopush_receipt(sms, word)

    blocker = connect(rig.gateway.settings.database)
    blocker.execute("BEGIN IMMEDIATE")
    taken = await waiting(send(0), depth=0)  # the ledger has it in hand and waits for the lock
    taken += await waiting(*(send(number) for number in range(1, 7)), depth=6)
    send_refused = await send(7)
    taken += await waiting(receipt("ACK"), receipt("DELIVERED"), depth=8)
    receipt_refused = await receipt("READ")
    blocker.close()
    answers = await asyncio.gather(*taken)
    await rig.settle()

    for refused in (send_refused, receipt_refused):
        assert {"retry_after": 1} == problem(refused, 503, "overloaded")
        assert "1" == refused.headers["retry-after"]
    assert [202] * 7 + [200] * 2 == [answer.status_code for answer in answers]
    assert ["sms:DELIVERED"] == rig.states(sent["verification_id"])


async def test_a_process_that_shuts_down_takes_nothing_more(rig: Rig) -> None:
    await rig.gateway.ledger.close()
    answer = await rig.call("/otp/send", {"to": NUMBER})

    problem(answer, 503, "closing")
    assert "1" == answer.headers["retry-after"]


# --- Unforeseen ---------------------------------------------------------------------------------


async def test_an_unforeseen_error_is_a_problem_and_a_line_without_secrets(
    tmp_path: Path, migrated: Path, clock: Clock, logs: io.BytesIO
) -> None:
    """A row whose key has gone from the keyring can be read by nobody: no code foresees that."""
    async with Rig(tmp_path, migrated, clock) as rig:
        sent = await rig.send(workflow="sms", code="83051746")
        key = rig.key
        rig.keyring = Keyring("k2", {"k2": b"2" * 32}, b"i" * 32)
        await rig.restart()
        named = {"verification_id": sent["verification_id"]}
        shown = await rig.call("/otp/status", named, key=key)
        checked = await rig.call("/otp/verify", {**named, "code": "83051746"}, key=key)
        lines = [orjson.loads(line) for line in logs.getvalue().splitlines()]

    assert {} == problem(shown, 500, "internal_error")
    assert {} == problem(checked, 500, "internal_error")
    assert "k1" not in shown.text
    assert [("error", "/otp/status"), ("error", "/otp/verify")] == [
        (line["level"], line["path"]) for line in lines if line["event"] == "unforeseen"
    ]
    assert any("KeyringError" in line.get("exception", "") for line in lines)
    for secret in (NUMBER[1:], "612345678", "83051746", key, "1" * 32):
        assert secret.encode() not in logs.getvalue()


async def test_after_an_unforeseen_error_the_gateway_goes_on(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    key, ring = rig.key, rig.keyring
    rig.keyring = Keyring("k2", {"k2": b"2" * 32}, b"i" * 32)
    await rig.restart()
    await rig.call(
        "/otp/verify", {"verification_id": sent["verification_id"], "code": "1"}, key=key
    )

    assert 202 == (await rig.call("/otp/send", {"to": "+33612345679"})).status_code
    await rig.settle()
    rig.keyring = ring
