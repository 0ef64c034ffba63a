"""`recipients`: many in one send, a result each, a bad one fails alone, room for all or none."""

from typing import Any

import pytest
from rig import NUMBER, Rig, problem

OTHER = "+33612345679"


async def send(rig: Rig, *recipients: Any, **more: Any) -> dict[str, Any]:
    answer = await rig.call("/otp/send", {"recipients": recipients, "workflow": "sms", **more})
    assert 202 == answer.status_code, answer.text
    await rig.settle()
    return dict(answer.json())


def codes(answer: dict[str, Any]) -> list[str]:
    """PENDING for a verification, the code of a problem."""
    return [one.get("code") or one["status"] for one in answer["results"]]


async def test_each_recipient_gets_a_code_of_its_own(rig: Rig) -> None:
    answer = await send(rig, {"phone_number": NUMBER}, {"phone": OTHER})
    sent = [one.body["recipients"][0]["phone_number"] for one in rig.transport.submissions]

    assert (2, 0, [NUMBER, OTHER]) == (answer["accepted"], answer["refused"], sent)
    assert 2 == len({one["verification_id"] for one in answer["results"]})


async def test_a_bad_entry_fails_alone_and_in_its_place(rig: Rig) -> None:
    answer = await send(
        rig,
        {"phone_number": "12"},
        {"phone_number": NUMBER},
        {"fax": NUMBER},
        "text",
        {},
        {"email": "jo@example.com"},
        {"phone_number": NUMBER},
        {"phone_number": OTHER, "phone": OTHER},
        {"phone_number": 33612345670},
        {"phone_number": OTHER, "params": {"name": "x"}},
        {"phone_number": OTHER},
    )

    assert [
        "recipient_invalid",
        "PENDING",
        "unknown_field",
        "invalid_request",
        "invalid_request",
        "no_address",
        "cool_down",
        "invalid_request",
        "invalid_request",
        "params_not_allowed",
        "PENDING",
    ] == codes(answer)
    assert (2, 9) == (answer["accepted"], answer["refused"])
    assert 2 == len(rig.transport.submissions)


async def test_an_entry_without_an_address_is_not_told_to_use_to(rig: Rig) -> None:
    (refused,) = (await send(rig, {}))["results"]

    assert "invalid_request" == refused["code"]
    assert refused["detail"].startswith("No address is named. Give one of `phone`")


async def test_a_problem_is_told_as_it_would_be_alone(rig: Rig) -> None:
    alone = await rig.call("/otp/send", {"to": {"phone": "12"}})
    answer = await send(rig, {"phone_number": "12"})

    assert [alone.json()] == answer["results"]


async def test_all_together_are_one_commit(rig: Rig) -> None:
    numbers = [f"+3361234{n:04}" for n in range(100)]
    before = rig.gateway.ledger.tally.commits
    body = {"recipients": [{"phone_number": one} for one in numbers], "workflow": "sms"}
    answer = await rig.call("/otp/send", body)
    accepted = rig.gateway.ledger.tally.commits - before
    await rig.settle()

    assert 202 == answer.status_code
    assert 1 == accepted
    assert numbers == [
        one.body["recipients"][0]["phone_number"] for one in rig.transport.submissions
    ]


async def test_five_hundred_are_taken_in_their_order(rig: Rig) -> None:
    references = [f"o-{n}" for n in range(500)]
    answer = await send(
        rig,
        *(
            {"phone_number": f"+3361234{n:04}", "reference": reference}
            for n, reference in enumerate(references)
        ),
    )

    assert references == [one["reference"] for one in answer["results"]]


async def test_without_room_for_all_nothing_is_stored(rig: Rig) -> None:
    rig.gateway.ledger._capacity = 12  # of which a send may fill nine
    recipients = [{"phone_number": f"+3361234000{n}"} for n in range(10)]
    answer = await rig.call("/otp/send", {"recipients": recipients, "workflow": "sms"})

    problem(answer, 503, "overloaded")
    assert [] == rig.dump()["verification"]
    assert 9 == (await send(rig, *recipients[:9]))["accepted"]


async def test_an_entry_has_its_own_code_reference_and_params(rig: Rig) -> None:
    answer = await send(rig, {"phone_number": NUMBER, "code": "482914", "reference": "o-1"})

    assert "482914" == rig.transport.submissions[0].code
    assert "o-1" == answer["results"][0]["reference"]


async def test_what_all_share_is_said_once(rig: Rig) -> None:
    paid = {"template": "payment", "amount": "5 EUR", "payee": "Zoé", "locale": "fr", "ttl": 600}
    await send(rig, {"phone_number": NUMBER}, {"phone_number": OTHER}, **paid)

    assert 2 == len(rig.transport.submissions)
    assert all("paiement de 5 EUR à Zoé" in one.text for one in rig.transport.submissions)


@pytest.mark.parametrize(
    "more",
    [
        {"to": NUMBER},
        {"code": "482914"},
        {"reference": "o-1"},
        {"recipients": []},
        {"recipients": [{"phone_number": NUMBER}] * 501},
        {"recipients": {"phone_number": NUMBER}},
    ],
)
async def test_recipients_stand_alone_and_are_one_to_five_hundred(
    rig: Rig, more: dict[str, Any]
) -> None:
    body = {"recipients": [{"phone_number": NUMBER}], "workflow": "sms", **more}

    problem(await rig.call("/otp/send", body), 400, "invalid_request")
    assert [] == rig.dump()["verification"]
