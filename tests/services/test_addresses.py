"""A recipient with several addresses: each step uses its channel's, what has none is left out."""

from pathlib import Path
from typing import Any

import pytest
from fakes import Clock
from rig import MESSENGER_SECRET, NUMBER, Rig, make_settings, problem

from gateway import config
from gateway.domain.delivery import State
from gateway.domain.keyring import Keyring
from gateway.domain.verification import COOL_DOWN, NEXT_PAUSE
from gateway.domain.workflow import Step, Until
from gateway.ports import Receipt, Secret
from gateway.providers.messenger import Messenger
from gateway.services.receive import Receive
from gateway.store import upkeep

MAIL = "Jo.Smith@example.com"
OTHER = "+33612345679"
FAILURES = "failure_budget_used_up"
FULL = {"phone": NUMBER, "email": MAIL, "messenger": "psid-2409177723", "whatsapp": OTHER}


def anywhere(channel: str) -> Messenger:
    """The messenger's API, for another channel."""
    made = Messenger(
        Messenger.Settings(
            name=channel,
            channel="messenger",
            account=channel,
            token=Secret("token"),
            callback_secret=(Secret(MESSENGER_SECRET),),
            base_url=f"https://{channel}.example/v1",
        )
    )
    made.channel = channel
    return made


@pytest.fixture
async def rig(tmp_path: Path, migrated: Path, clock: Clock):  # type: ignore[no-untyped-def]
    """Workflow `all`: e-mail, WhatsApp, messenger, SMS; `mail` alone; the rig's own `sms`."""
    plain = make_settings(tmp_path)
    steps = tuple(
        Step(channel, (route,), 60, Until.DELIVERED)
        for channel, route in (
            ("email", "email"),
            ("whatsapp", "whatsapp"),
            ("messenger", "messenger"),
            ("sms", "octopush"),
        )
    )
    providers = (anywhere("email"), anywhere("whatsapp"), *plain.providers)
    workflows = {**plain.workflows, "all": steps, "mail": steps[:1]}
    settings = config.replace(plain, providers, workflows)
    async with Rig(tmp_path, migrated, clock, settings=settings) as made:
        yield made


def sent_to(rig: Rig) -> list[tuple[str, str]]:
    """Host and address of each submission."""
    return [
        (one.host.split(".")[0], one.body.get("to") or one.body["recipients"][0]["phone_number"])
        for one in rig.transport.submissions
    ]


async def shown(rig: Rig, **named: Any) -> dict[str, Any]:
    answer = await rig.call("/otp/status", named)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_each_step_goes_to_the_address_of_its_channel(rig: Rig) -> None:
    sent = await rig.send(FULL, workflow="all")
    for _ in range(3):
        await rig.call("/otp/next", {"verification_id": sent["verification_id"]})
        await rig.settle()
        rig.clock.advance(NEXT_PAUSE)

    assert [
        ("email", MAIL),
        ("whatsapp", OTHER),
        ("messenger", "psid-2409177723"),
        ("octopush", NUMBER),
    ] == sent_to(rig)


async def test_a_messenger_without_an_id_of_its_own_gets_the_phone(rig: Rig) -> None:
    await rig.send({"phone": NUMBER, "email": MAIL}, workflow="messenger_only")

    assert [("messenger", NUMBER)] == sent_to(rig)


async def test_a_step_without_an_address_is_left_out_and_said_to_be(rig: Rig) -> None:
    sent = await rig.send(workflow="all")
    status = await shown(rig, verification_id=sent["verification_id"])

    assert [("whatsapp", NUMBER)] == sent_to(rig)
    assert [{"channel": "email", "route": "email", "reason": "no_address"}] == status["left_out"]
    assert status["explanation"].startswith("An e-mail was left out: no address for it was given.")


async def test_what_is_left_out_for_two_reasons_is_said_of_both(rig: Rig) -> None:
    first = await rig.send(workflow="all")
    (attempt,) = rig.attempts(first["verification_id"])
    receipt = Receipt("gone", State.FAILED, reason="not_a_user", avoid=3600.0)
    await rig.gateway.ledger.submit(Receive("whatsapp", "whatsapp", attempt.id, (receipt,)))
    await rig.call("/otp/cancel", {"verification_id": first["verification_id"]})
    rig.clock.advance(COOL_DOWN)
    second = await rig.send(workflow="all")
    status = await shown(rig, verification_id=second["verification_id"])

    assert [("email", "no_address"), ("whatsapp", "not_a_user")] == [
        (one["channel"], one["reason"]) for one in status["left_out"]
    ]


@pytest.mark.parametrize(
    ("to", "more", "channels"),
    [
        (NUMBER, {"workflow": "mail"}, ["email"]),
        (NUMBER, {"channel": "email"}, ["email"]),
        ({"email": MAIL}, {"workflow": "sms"}, ["sms", "voice"]),
        ({"email": MAIL}, {"channel": "whatsapp"}, ["whatsapp"]),
    ],
)
async def test_no_step_left_is_refused_with_the_channels(
    rig: Rig, to: Any, more: dict[str, str], channels: list[str]
) -> None:
    answer = await rig.call("/otp/send", {"to": to, **more})

    assert {"channels": channels} == problem(answer, 400, "no_address")
    assert [] == rig.transport.submissions


async def test_an_address_that_one_channel_does_not_reach_says_nothing_of_the_phone(
    rig: Rig,
) -> None:
    """The WhatsApp number of the first is not on WhatsApp; the phone may well be."""
    to = {"phone": NUMBER, "whatsapp": OTHER}
    sent = await rig.send(to, workflow="all")
    (attempt,) = rig.attempts(sent["verification_id"])
    receipt = Receipt("gone", State.FAILED, reason="not_a_user", avoid=3600.0)
    await rig.gateway.ledger.submit(Receive("whatsapp", "whatsapp", attempt.id, (receipt,)))
    await rig.call("/otp/cancel", {"verification_id": sent["verification_id"]})
    rig.clock.advance(COOL_DOWN)
    await rig.settle()
    rig.transport.submissions.clear()
    again = await rig.send(to, workflow="all")
    await rig.call("/otp/cancel", {"verification_id": again["verification_id"]})
    rig.clock.advance(COOL_DOWN)
    await rig.send(NUMBER, workflow="all")

    assert [("messenger", NUMBER), ("whatsapp", NUMBER)] == sent_to(rig)


# Found by any of them.


@pytest.mark.parametrize(
    "named",
    [
        {"number": NUMBER},
        {"number": OTHER},
        {"email": "jo.smith@EXAMPLE.com"},
        {"messenger": "psid-2409177723"},
    ],
)
async def test_every_address_finds_the_verification(rig: Rig, named: dict[str, str]) -> None:
    sent = await rig.send(FULL, workflow="all")

    assert sent["verification_id"] == (await shown(rig, **named))["verification_id"]


async def test_a_code_is_verified_by_e_mail_address(rig: Rig) -> None:
    await rig.send({"email": MAIL}, workflow="mail")
    code = rig.transport.submissions[0].code
    answer = await rig.call("/otp/verify", {"email": MAIL, "code": code})

    assert (200, "VERIFIED") == (answer.status_code, answer.json()["status"])


async def test_an_address_of_another_client_finds_nothing(rig: Rig) -> None:
    await rig.send(FULL, workflow="all")
    key = await rig.client("other")
    answer = await rig.call("/otp/status", {"email": MAIL}, key=key)

    problem(answer, 404, "verification_not_found")


async def test_two_sends_to_one_mailbox_are_one_verification(rig: Rig) -> None:
    first = await rig.send({"email": MAIL}, workflow="mail")
    rig.clock.advance(31)
    second = await rig.send({"email": MAIL.lower()}, workflow="mail")

    assert (first["verification_id"], True) == (second["verification_id"], second["joined"])


@pytest.mark.parametrize("name", ["number", "email", "messenger"])
async def test_an_address_has_no_place_in_a_url(rig: Rig, name: str) -> None:
    answer = await rig.http.get(
        "/otp/status", params={name: "x"}, headers={"authorization": f"Bearer {rig.key}"}
    )

    problem(answer, 400, "number_in_url")


# Shown masked, stored sealed.


async def test_a_status_shows_every_address_masked(rig: Rig) -> None:
    sent = await rig.send(FULL, workflow="all")
    status = await shown(rig, verification_id=sent["verification_id"])

    assert "+33 6•• ••• •78" == status["recipient"]
    assert {
        "phone": "+33 6•• ••• •78",
        "email": "J•••@e•••.com",
        "messenger": "ps•••23",
        "whatsapp": "+33 6•• ••• •79",
    } == status["addresses"]


async def test_the_database_holds_no_address_in_the_clear(rig: Rig) -> None:
    await rig.send(FULL, workflow="all")
    dump = repr(rig.dump()).lower()

    assert [] == [
        text for text in (*FULL.values(), "jo.smith", "2409177723") if text.lower() in dump
    ]
    assert 3 == len(rig.dump()["recipient"])


async def test_a_number_alone_has_no_further_rows(rig: Rig) -> None:
    await rig.send({"phone": NUMBER, "whatsapp": NUMBER}, workflow="all")
    await rig.send(OTHER, workflow="sms")

    assert [] == rig.dump()["recipient"]


async def test_another_index_key_finds_every_address_again(rig: Rig) -> None:
    sent = await rig.send(FULL, workflow="all")
    renewed = Keyring("k1", {"k1": b"1" * 32}, b"j" * 32)
    await upkeep.reindex(rig.runtime.engine, rig.keyring, renewed)

    for kind, text in (("phone", NUMBER), ("phone", OTHER), ("email", MAIL.lower())):
        found = rig.reads.by_number(None, renewed.index(kind, text))
        assert [sent["verification_id"]] == [str(one) for one in found]
    assert [] == rig.reads.by_number(None, rig.keyring.index("email", MAIL.lower()))


# What is not an address.


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ({"email": "no mailbox"}, "recipient_invalid"),
        ({"phone": "+331"}, "recipient_invalid"),
        ({"phone": NUMBER, "messenger": "two words"}, "recipient_invalid"),
        ({"whatsapp": "+33899123456"}, "recipient_refused"),
    ],
)
async def test_a_wrong_address_is_named_by_its_field(
    rig: Rig, to: dict[str, str], code: str
) -> None:
    answer = await rig.call("/otp/send", {"to": to, "workflow": "all"})

    assert list(to)[-1] == problem(answer, 400, code)["field"]
    assert list(to.values())[-1] not in answer.text


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ({}, "invalid_request"),
        ({"fax": "1"}, "unknown_field"),
        ({"email": 5}, "invalid_request"),
        ({"email": ""}, "invalid_request"),
    ],
)
async def test_a_table_of_addresses_has_known_kinds_and_texts(rig: Rig, to: Any, code: str) -> None:
    problem(await rig.call("/otp/send", {"to": to}), 400, code)


async def wrong(rig: Rig, sent: dict[str, Any], times: int = 5) -> list[int]:
    """The answers to so many wrong codes."""
    found = []
    for number in range(times):
        answer = await rig.verify(sent["verification_id"], f"{number:04}")
        found.append(answer.status_code)
    return found


async def test_guesses_at_one_mailbox_are_counted_together(rig: Rig) -> None:
    """Whatever number is named beside it. (Seen to fail, without end, when they were counted by the
    principal address alone.)"""
    for number in range(3):
        rig.clock.advance(COOL_DOWN)
        to = {"phone": f"+336123456{number:02}", "email": MAIL}
        sent = await rig.send(to, workflow="mail")

        assert [404] * 5 == await wrong(rig, sent)

    rig.clock.advance(COOL_DOWN)
    other = {"phone": OTHER, "email": MAIL.upper()}

    problem(await rig.call("/otp/send", {"to": other, "workflow": "mail"}), 429, FAILURES)
    problem(await rig.call("/otp/send", {"to": {"email": MAIL}, "workflow": "mail"}), 429, FAILURES)
    await rig.send("+33612345600", workflow="sms")  # the number was sent nothing


async def test_one_mailbox_gets_no_more_than_one_number(rig: Rig) -> None:
    """Cool-down and limit hold it, whatever number is named beside it; and a right code ends the
    cool-down as ever."""

    async def to_it(number: int) -> Any:
        to = {"phone": f"+336123456{number:02}", "email": MAIL}
        answer = await rig.call("/otp/send", {"to": to, "workflow": "mail"})
        await rig.settle()
        return answer

    first = await to_it(0)
    code = rig.transport.submissions[-1].code

    problem(await to_it(1), 429, "cool_down")
    assert 200 == (await rig.verify(first.json()["verification_id"], code)).status_code

    for number in range(1, 5):
        assert 202 == (await to_it(number)).status_code
        rig.clock.advance(COOL_DOWN)

    problem(await to_it(5), 429, "limit_reached")


async def test_what_is_sent_nothing_is_counted_nothing(rig: Rig) -> None:
    for number in range(6):
        rig.clock.advance(COOL_DOWN)
        await rig.send({"phone": NUMBER, "email": f"jo{number}@example.com"}, workflow="mail")
        rig.clock.advance(300)
        await rig.reconcile()
