"""/otp/subscriptions: a client's own, their secrets shown once, and what is no URL refused."""

from typing import Any

import httpx
import pytest
from endpoints import URL, subscribe
from rig import Rig, problem

from gateway.domain.events import KINDS
from gateway.services.subscriptions import MOST

PATH = "/otp/subscriptions"
SHOWN = {
    "subscription_id",
    "url",
    "kinds",
    "created_at",
    "rotated_at",
    "undelivered",
    "failures",
    "failing_since",
    "problem",
    "disabled_at",
    "disabled_why",
}


async def get(rig: Rig, path: str = PATH, key: str | None = None) -> httpx.Response:
    return await rig.http.get(path, headers={"authorization": f"Bearer {key or rig.key}"})


async def delete(rig: Rig, path: str, key: str | None = None) -> httpx.Response:
    return await rig.http.delete(path, headers={"authorization": f"Bearer {key or rig.key}"})


async def test_a_subscription_is_answered_with_its_secret_this_once(rig: Rig) -> None:
    made = await subscribe(rig)
    listed = (await get(rig)).json()["subscriptions"]
    shown = (await get(rig, f"{PATH}/{made['subscription_id']}")).json()

    assert SHOWN | {"secret"} == made.keys()
    assert made["secret"].startswith("whsec_")
    assert [{name: made[name] for name in SHOWN}] == listed
    assert listed[0] == shown
    assert (URL, list(KINDS)) == (shown["url"], shown["kinds"])


async def test_a_secret_lies_sealed_in_the_database(rig: Rig) -> None:
    made = await subscribe(rig)
    from gateway.domain import signing

    secret = signing.read(made["secret"])
    rows = [value for row in rig.dump()["subscription"] for value in row]

    assert rows
    assert not any(secret in value for value in rows if isinstance(value, bytes))
    assert not any(made["secret"] in value for value in rows if isinstance(value, str))


async def test_rotating_answers_with_another_secret(rig: Rig) -> None:
    made = await subscribe(rig)
    answer = await rig.call(f"{PATH}/{made['subscription_id']}/rotate", {})

    assert 200 == answer.status_code
    assert answer.json()["rotated_at"] is not None
    assert answer.json()["secret"] not in {made["secret"], None}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example",
        "/otp",
        "https://",
        "https:///x",
        "ftp://hooks.example/",
        "http://hooks.example/",
        "https://user:pass@hooks.example/",
        "https://hooks.example/#here",
        "https://hooks.example:99999/",
        "https://hooks .example/",
        "https://hooks.example/\n",
        "https://höoks.example/",
        "https://[::1/",
        "https://127.0.0.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://hooks.example/" + "x" * 2048,
    ],
)
async def test_a_url_that_webhooks_cannot_go_to_is_refused(rig: Rig, url: str) -> None:
    problem(await rig.call(PATH, {"url": url}), 400, "bad_url")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_request"),
        ({"url": None}, "invalid_request"),
        ({"url": [URL]}, "invalid_request"),
        ({"url": URL, "kinds": "verification.sent"}, "invalid_request"),
        ({"url": URL, "kinds": ["verification.sent"] * 51}, "invalid_request"),
        ({"url": URL, "kinds": ["verification.began"]}, "unknown_kind"),
        ({"url": URL, "secret": "mine"}, "unknown_field"),
    ],
)
async def test_a_body_that_is_none_is_refused(rig: Rig, body: Any, code: str) -> None:
    problem(await rig.call(PATH, body), 400, code)


@pytest.mark.parametrize(
    "since", ["yesterday", "2026-11-21T10:00:00", "2999-01-01T00:00:00Z", "", True]
)
async def test_a_replay_since_no_time_is_refused(rig: Rig, since: Any) -> None:
    made = await subscribe(rig)
    path = f"{PATH}/{made['subscription_id']}/replay"

    problem(await rig.call(path, {"since": since}), 400, "invalid_request")


async def test_a_replay_since_ever_is_none_of_nothing(rig: Rig) -> None:
    made = await subscribe(rig)
    path = f"{PATH}/{made['subscription_id']}/replay"
    answer = await rig.call(path, {"since": "0001-01-01T00:00:00Z"})

    assert (202, 0) == (answer.status_code, answer.json()["replayed_verifications"])


async def test_a_client_has_so_many_and_no_more(rig: Rig) -> None:
    for _ in range(MOST):
        await subscribe(rig)
    other = await rig.client("other")

    problem(await rig.call(PATH, {"url": URL}), 409, "too_many_subscriptions")
    assert 201 == (await rig.call(PATH, {"url": URL}, key=other)).status_code


@pytest.mark.parametrize("deed", ["", "/rotate", "/replay", "/test"])
async def test_another_clients_subscription_is_not_found(rig: Rig, deed: str) -> None:
    made = await subscribe(rig)
    other = await rig.client("other")
    path = f"{PATH}/{made['subscription_id']}{deed}"
    if deed:
        answers = [await rig.call(path, {}, key=other)]
    else:
        answers = [await get(rig, path, other), await delete(rig, path, other)]

    for answer in answers:
        problem(answer, 404, "subscription_not_found")
    assert [] == (await get(rig, PATH, other)).json()["subscriptions"]
    assert 1 == len((await get(rig)).json()["subscriptions"])


@pytest.mark.parametrize("named", ["", "x", "0", "%00", "a/b/c"])
async def test_an_id_that_is_none_is_not_found(rig: Rig, named: str) -> None:
    assert 404 == (await get(rig, f"{PATH}/{named}")).status_code


async def test_there_are_no_other_deeds(rig: Rig) -> None:
    made = await subscribe(rig)

    problem(await rig.call(f"{PATH}/{made['subscription_id']}/x", {}), 404, "no_such_path")
    whole = await rig.call(f"{PATH}/{made['subscription_id']}", {})
    deed = await get(rig, f"{PATH}/{made['subscription_id']}/rotate")
    problem(whole, 405, "method_not_allowed")
    problem(deed, 405, "method_not_allowed")

    assert ("GET, DELETE, HEAD", "POST") == (whole.headers["allow"], deed.headers["allow"])


async def test_removing_is_answered_with_nothing(rig: Rig) -> None:
    made = await subscribe(rig)
    answer = await delete(rig, f"{PATH}/{made['subscription_id']}")

    assert (204, b"") == (answer.status_code, answer.content)
    assert "content-length" not in answer.headers
    assert [] == (await get(rig)).json()["subscriptions"]


async def test_a_key_that_may_only_look_changes_nothing(rig: Rig) -> None:
    reader = await rig.client("reader", "status")
    writer = await rig.client("writer", "send")

    problem(await rig.call(PATH, {"url": URL}, key=reader), 403, "scope_missing")
    problem(await get(rig, PATH, writer), 403, "scope_missing")
    assert 200 == (await get(rig, PATH, reader)).status_code


async def test_without_a_key_there_is_nothing_to_see(rig: Rig) -> None:
    problem(await rig.http.get(PATH), 401, "key_missing")
    problem(await rig.http.get("/otp/events?verification_id=x"), 401, "key_missing")
