"""Infobip as the sandbox plays it: requests, answers, reports in batches."""

from typing import Any

import httpx
import orjson
import pytest
from sandbox.conftest import MakeRig
from sandbox.world import Rig

from gateway.sandbox.generic_batches import MESSAGES

CALLBACK = "https://otp.example.com/otp/delivered/infobip/key"


@pytest.fixture
def infobip(make_rig: MakeRig) -> Rig:
    return make_rig(accounts={"infobip": {"api_key": "key-1", "callback_url": CALLBACK}})


async def send(rig: Rig, number: str = "33600000000", key: str = "key-1", **fields: Any) -> Any:
    message = {
        "destinations": [{"to": number, "messageId": "m_1"}],
        "content": {"text": "123456 is your code"},
        "webhooks": {"callbackData": "a1"},
        **fields,
    }
    return await post(rig, {"messages": [message]}, key)


async def post(rig: Rig, body: object, key: str = "key-1") -> httpx.Response:
    headers = {"Authorization": f"App {key}"}
    return await rig.client.post(MESSAGES, json=body, headers=headers)


def batches(rig: Rig) -> list[list[str]]:
    return [[result["status"]["name"] for result in sent.json["results"]] for sent in rig.post.sent]


async def test_an_accepted_message(infobip: Rig) -> None:
    response = await send(infobip)
    (answer,) = response.json()["messages"]
    message = infobip.only()

    assert 200 == response.status_code
    assert ("m_1", "PENDING") == (answer["messageId"], answer["status"]["groupName"])
    assert ("+33600000000", "a1", "m_1") == (message.number, message.client_ref, message.id)


async def test_reports_come_in_batches(infobip: Rig) -> None:
    await send(infobip)
    await infobip.run()
    result = infobip.post.sent[-1].json["results"][-1]

    assert [
        ["DELIVERED_TO_OPERATOR"],
        ["DELIVERED_TO_OPERATOR", "DELIVERED_TO_HANDSET"],
    ] == batches(infobip)
    assert [CALLBACK] * 2 == [sent.url for sent in infobip.post.sent]
    assert ("a1", "33600000000", "2026-03-01T12:00:02.000+0000") == (
        result["callbackData"],
        result["to"],
        result["doneAt"],
    )


async def test_a_failure_names_an_error(infobip: Rig) -> None:
    await send(infobip, "33600000300")
    await infobip.run()

    assert "EC_ABSENT_SUBSCRIBER" == infobip.post.sent[0].json["results"][0]["error"]["name"]


@pytest.mark.parametrize(
    ("number", "status"), [("33600000800", 429), ("33600000900", 500), ("33600001200", 200)]
)
async def test_numbers_that_are_refused(infobip: Rig, number: str, status: int) -> None:
    response = await send(infobip, number)
    await infobip.run()

    assert status == response.status_code
    assert status != 200 or "REJECTED" == response.json()["messages"][0]["status"]["groupName"]
    assert [] == infobip.post.sent


async def test_without_a_callback_url_nobody_is_told(make_rig: MakeRig) -> None:
    rig = make_rig(accounts={"infobip": {"api_key": "key-1"}})
    await send(rig)
    await rig.run()

    assert rig.only().arrived_at
    assert [] == rig.post.sent


SOUND = {"destinations": [{"to": "33600000000"}], "content": {"text": "x"}}


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"messages": []},
        {"messages": [SOUND, SOUND]},
        {"messages": [7]},
        {"messages": [{**SOUND, "destinations": []}]},
        {"messages": [{**SOUND, "destinations": [{"to": "x"}]}]},
        {"messages": [{**SOUND, "destinations": [{"to": 33600000000}]}]},
        {"messages": [{**SOUND, "content": {"text": ""}}]},
        {"messages": [{**SOUND, "content": None}]},
        {"messages": [{**SOUND, "sender": 7}]},
        {"messages": [{**SOUND, "webhooks": 7}]},
    ],
)
async def test_wrong_requests(infobip: Rig, body: object) -> None:
    response = await post(infobip, body)

    assert 400 == response.status_code
    assert "BAD_REQUEST" == response.json()["requestError"]["serviceException"]["messageId"]
    assert [] == infobip.sandbox.messages()


async def test_a_body_that_is_no_json(infobip: Rig) -> None:
    headers = {"Authorization": "App key-1"}
    response = await infobip.client.post(MESSAGES, content=b"{", headers=headers)

    assert 400 == response.status_code


async def test_a_wrong_key_is_refused_and_without_an_account_every_key(
    infobip: Rig, rig: Rig
) -> None:
    answers = [await send(infobip, key="key-2"), await send(rig), await send(rig, key="")]

    assert [401] * 3 == [answer.status_code for answer in answers]
    assert orjson.loads(answers[0].content)["requestError"]
