"""Bearer keys: who may call what, and whose verifications they see."""

import hashlib
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from rig import NUMBER, Rig, problem

from gateway.domain.identity import uuid7
from gateway.store import writes
from gateway.store.records import ApiKey, Client
from gateway.web import auth

CALLS = ("/otp/send", "/otp/status", "/otp/verify", "/otp/cancel", "/otp/next")
UNKNOWN_ID = "01890000-0000-7000-8000-000000000000"


async def key_with(
    rig: Rig, *, expires_at: datetime | None = None, revoked_at: datetime | None = None
) -> str:
    """A key of a client of its own."""
    key, now = auth.new_key(), rig.clock.now()
    named = uuid7(now, auth.digest(key)[:10])
    row = ApiKey(
        uuid7(now, auth.digest(key)[10:20]),
        named,
        auth.digest(key),
        "send verify status",
        now,
        expires_at,
        revoked_at,
    )
    engine = rig.runtime.engine
    await engine.begin()
    await writes.insert_client(engine, Client(named, key[-8:], now), row)
    await engine.commit()
    return key


async def everything(rig: Rig, verification_id: str, key: str) -> list[httpx.Response]:
    """Every call that names a verification, by somebody's key."""
    named: dict[str, Any] = {"verification_id": verification_id}
    return [
        await rig.http.get("/otp/status", params=named, headers={"authorization": f"Bearer {key}"}),
        await rig.call("/otp/status", named, key=key),
        await rig.call("/otp/verify", {**named, "code": "000000"}, key=key),
        await rig.call("/otp/cancel", named, key=key),
        await rig.call("/otp/next", named, key=key),
    ]


# --- Keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Token x", "otp_live_x", "Bearer\tx"],
)
async def test_f45_no_call_works_without_a_key(rig: Rig, path: str, header: str | None) -> None:
    before = rig.dump()
    headers = {"content-type": "application/json"}
    headers |= {"authorization": header} if header is not None else {}
    answer = await rig.http.post(path, content=b'{"to": "+33612345678"}', headers=headers)

    assert {} == problem(answer, 401, "key_missing")
    assert 'Bearer realm="otp-gateway"' == answer.headers["www-authenticate"]
    assert before == rig.dump()


async def test_a_look_at_a_status_needs_a_key_too(rig: Rig) -> None:
    sent = await rig.send()
    params = {"verification_id": sent["verification_id"]}

    problem(await rig.http.get("/otp/status", params=params), 401, "key_missing")


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("key", ["otp_live_" + "x" * 43, "x", "é", "otp_live_" + "x" * 60_000])
async def test_an_unknown_key_is_refused(rig: Rig, path: str, key: str) -> None:
    answer = await rig.http.post(
        path,
        content=b"{}",
        headers={b"content-type": b"application/json", b"authorization": f"Bearer {key}".encode()},
    )

    assert {} == problem(answer, 401, "key_unknown")
    assert 'Bearer realm="otp-gateway"' == answer.headers["www-authenticate"]
    assert key not in answer.text or key == "x"


async def test_a_key_is_asked_for_before_anything_else(rig: Rig) -> None:
    """Whoever has no key learns nothing of bodies and fields."""
    for content in (b"{", b'{"wrong": 1}', b" " * 200_000):
        problem(await rig.http.post("/otp/send", content=content), 401, "key_missing")


async def test_a_prefix_or_another_spelling_of_a_key_is_unknown(rig: Rig) -> None:
    for key in (rig.key[:-1], rig.key + "x", rig.key.upper(), rig.key[9:]):
        problem(await rig.call("/otp/send", {"to": NUMBER}, key=key), 401, "key_unknown")


async def test_the_scheme_is_spelled_as_one_likes(rig: Rig) -> None:
    for scheme in ("bearer", "BEARER"):
        headers = {"authorization": f"{scheme} {rig.key}", "content-type": "application/json"}
        body = b'{"reference": "none"}'
        answer = await rig.http.post("/otp/status", content=body, headers=headers)

        problem(answer, 404, "verification_not_found")


async def test_a_key_works_until_it_expires(rig: Rig) -> None:
    key = await key_with(rig, expires_at=rig.clock.now() + timedelta(seconds=60))
    body = {"to": NUMBER, "workflow": "sms"}
    rig.clock.advance(59.999)
    timely = await rig.call("/otp/send", body, key=key)
    rig.clock.advance(5.001)  # and what is held of it
    late = await rig.call("/otp/send", body, key=key)

    assert 202 == timely.status_code
    problem(late, 401, "key_unknown")


async def test_a_revoked_key_is_refused(rig: Rig) -> None:
    key = await key_with(rig, revoked_at=rig.clock.now())

    problem(await rig.call("/otp/send", {"to": NUMBER}, key=key), 401, "key_unknown")


@pytest.mark.sqlite
async def test_a_key_revoked_while_it_is_held_works_for_five_seconds_more_at_most(rig: Rig) -> None:
    await rig.send(workflow="sms")
    with closing(sqlite3.connect(rig.gateway.settings.database)) as other:
        other.execute("UPDATE api_key SET revoked_at = created_at")
        other.commit()
    rig.clock.advance(5)
    answer = await rig.call("/otp/send", {"to": NUMBER})

    problem(answer, 401, "key_unknown")


async def test_a_new_key_works_at_once_even_if_it_was_tried_before(rig: Rig) -> None:
    """A refusal is not held."""
    key = "otp_live_" + "k" * 43
    early = await rig.call("/otp/send", {"to": NUMBER}, key=key)
    now = rig.clock.now()
    named = uuid7(now, b"0" * 10)
    row = ApiKey(uuid7(now, b"1" * 10), named, auth.digest(key), "send", now, None, None)
    engine = rig.runtime.engine
    await engine.begin()
    await writes.insert_client(engine, Client(named, "late", now), row)
    await engine.commit()

    problem(early, 401, "key_unknown")
    assert 202 == (await rig.call("/otp/send", {"to": NUMBER}, key=key)).status_code


async def test_keys_are_stored_as_their_digest_alone(rig: Rig) -> None:
    (row,) = rig.dump()["api_key"]

    assert hashlib.sha256(rig.key.encode()).digest() in row
    assert rig.key not in str(row)


def test_new_keys_hold_256_random_bits() -> None:
    keys = {auth.new_key() for _ in range(100)}

    assert 100 == len(keys)
    assert {len("otp_live_") + 43} == {len(key) for key in keys}


# --- Scopes -------------------------------------------------------------------------------------

NEEDS = {
    "/otp/send": "send",
    "/otp/status": "status",
    "/otp/verify": "verify",
    "/otp/cancel": "send",
    "/otp/next": "send",
}


@pytest.mark.parametrize(("path", "scope"), NEEDS.items())
async def test_a_missing_scope_is_named(rig: Rig, path: str, scope: str) -> None:
    before_any_call = "send verify status operate".replace(scope, "").split()
    key = await rig.client("limited", " ".join(before_any_call))
    before = rig.dump()
    answer = await rig.call(path, {"to": NUMBER}, key=key)

    assert {"scope": scope} == problem(answer, 403, "scope_missing")
    assert scope in answer.json()["detail"]
    assert "www-authenticate" not in answer.headers
    assert before == rig.dump()


@pytest.mark.parametrize(("path", "scope"), NEEDS.items())
async def test_one_scope_is_enough_for_its_calls(rig: Rig, path: str, scope: str) -> None:
    key = await rig.client("narrow", scope)
    answer = await rig.call(path, {"verification_id": UNKNOWN_ID}, key=key)

    assert answer.status_code in {400, 404}


# --- Whose verifications ------------------------------------------------------------------------


async def test_f45_anothers_verification_is_not_there(rig: Rig) -> None:
    """Nothing tells it from one that never was, and trying changes nothing."""
    sent = await rig.send(workflow="sms", reference="o-1")
    other = await rig.client("other")
    before = rig.dump()
    strange = await everything(rig, sent["verification_id"], other)
    absent = await everything(rig, UNKNOWN_ID, other)

    for answer in strange:
        assert {} == problem(answer, 404, "verification_not_found")
    assert [one.content for one in absent] == [one.content for one in strange]
    assert before == rig.dump()


@pytest.mark.parametrize("named", [{"reference": "o-1"}, {"number": NUMBER}])
async def test_f45_nor_by_reference_or_number(rig: Rig, named: dict[str, str]) -> None:
    await rig.send(workflow="sms", reference="o-1")
    other = await rig.client("other")
    answers = [
        await rig.call(path, named | more, key=other)
        for path, more in [
            ("/otp/status", {}),
            ("/otp/verify", {"code": "000000"}),
            ("/otp/cancel", {}),
            ("/otp/next", {}),
        ]
    ]

    for answer in answers:
        assert {} == problem(answer, 404, "verification_not_found")


async def test_each_client_finds_its_own_by_a_reference_both_use(rig: Rig) -> None:
    other = await rig.client("other")
    mine = await rig.send(workflow="sms", reference="o-1")
    body = {"to": NUMBER, "workflow": "sms", "reference": "o-1"}
    theirs = (await rig.call("/otp/send", body, key=other)).json()
    shown = [
        (await rig.call("/otp/status", named, key=key)).json()["verification_id"]
        for key in (rig.key, other)
        for named in ({"reference": "o-1"}, {"number": NUMBER})
    ]

    assert [mine["verification_id"]] * 2 + [theirs["verification_id"]] * 2 == shown


async def test_operate_sees_every_clients_verifications(rig: Rig) -> None:
    sent = await rig.send(workflow="sms", reference="o-1")
    operator = await rig.client("operator", "status operate")
    shown = [
        (await rig.call("/otp/status", named, key=operator)).json()["verification_id"]
        for named in (
            {"verification_id": sent["verification_id"]},
            {"reference": "o-1"},
            {"number": NUMBER},
        )
    ]

    assert [sent["verification_id"]] * 3 == shown


async def test_operate_sees_and_does_not_touch(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    operator = await rig.client("operator", "send verify status operate")
    before = rig.dump()
    named = {"verification_id": sent["verification_id"]}
    answers = [
        await rig.call("/otp/verify", {**named, "code": "000000"}, key=operator),
        await rig.call("/otp/cancel", named, key=operator),
        await rig.call("/otp/next", named, key=operator),
    ]

    for answer in answers:
        problem(answer, 404, "verification_not_found")
    assert before == rig.dump()


@pytest.mark.parametrize(
    "named", ["", "x", UNKNOWN_ID[:-1], UNKNOWN_ID + "0", "{" + UNKNOWN_ID[1:-1] + "}", "é" * 36]
)
async def test_what_is_no_id_is_not_found_or_refused(rig: Rig, named: str) -> None:
    answers = await everything(rig, named, rig.key)

    assert {400 if named == "" or len(named) > 64 else 404} == {one.status_code for one in answers}


async def test_ids_are_found_in_either_case(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    upper = sent["verification_id"].upper()
    shown = (await rig.call("/otp/status", {"verification_id": upper})).json()

    assert UUID(upper) == UUID(shown["verification_id"])
