"""Limits over the real ledger: who is counted together, for how long, and nobody past the last."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import Clock
from rig import NUMBER, Rig, make_settings, problem

from gateway.domain.countries import Countries
from gateway.domain.limits import PER_NUMBER, Per, Rule
from gateway.domain.policy import Policy
from gateway.domain.verification import COOL_DOWN, Status
from gateway.services import limiting
from gateway.store.tallies import Tallies

IP = "203.0.113.7"
With = Callable[..., Any]


def numbers(count: int, prefix: str = "+336123") -> list[str]:
    return [f"{prefix}{at:05}" for at in range(count)]


@pytest.fixture
def ruled(tmp_path: Path, migrated: Path, clock: Clock) -> With:
    """A rig whose gateway has these rules, beside what a policy has by default."""

    @asynccontextmanager
    async def made(*rules: Rule, **policy: Any) -> AsyncIterator[Rig]:
        settings = replace(make_settings(tmp_path), policy=Policy(rules=rules, **policy))
        async with Rig(tmp_path, migrated, clock, settings=settings) as rig:
            yield rig

    return made


async def ask(rig: Rig, to: str, key: str | None = None, **more: Any) -> httpx.Response:
    return await rig.call("/otp/send", {"to": to, "workflow": "sms_only", **more}, key=key)


async def statuses(rig: Rig, *to: str, **more: Any) -> list[int]:
    return [(await ask(rig, one, **more)).status_code for one in to]


def noted(rig: Rig) -> list[Any]:
    """What the log will be told, from now on."""
    found: list[Any] = []
    rig.after = lambda item: found.append(item) if hasattr(item, "event") else None
    return found


# Who is counted together.


async def test_all_clients_count_together_for_a_number(ruled: With) -> None:
    async with ruled(PER_NUMBER) as rig:
        keys = [await rig.client(f"c{at}") for at in range(6)]
        answers = [await ask(rig, NUMBER, key) for key in keys]

        assert [202] * 5 + [429] == [one.status_code for one in answers]
        facts = problem(answers[-1], 429, "limit_reached")
        assert {
            "rule": "number",
            "limit": 5,
            "window": 600,
            "remaining": 0,
            "reset": "2026-11-21T12:10:00.000Z",
            "retry_after": 600,
        } == facts
        assert "600" == answers[-1].headers["retry-after"]


@pytest.mark.parametrize(
    ("rule", "together", "apart"),
    [
        (
            Rule("range", Per.PREFIX, 600, 2, digits=6),
            ["+33612300001", "+33612300002", "+33612399999"],
            "+33612400001",
        ),
        (
            Rule("land", Per.COUNTRY, 600, 2),
            ["+33612300001", "+33622300002", "+33612399999"],
            "+4915123456789",
        ),
    ],
)
async def test_numbers_of_one_range_count_together(
    ruled: With, rule: Rule, together: list[str], apart: str
) -> None:
    async with ruled(rule) as rig:
        assert [202, 202, 429, 202] == await statuses(rig, *together, apart)
        facts = problem(await ask(rig, together[0][:-1] + "7"), 429, "limit_reached")
        assert (rule.name, 2, 600, 0) == tuple(
            facts[name] for name in ("rule", "limit", "window", "remaining")
        )


async def test_a_client_has_its_own_count(ruled: With) -> None:
    async with ruled(Rule("mine", Per.CLIENT, 600, 2)) as rig:
        other = await rig.client("other")

        assert [202, 202, 429] == await statuses(rig, *numbers(3))
        assert [202] == await statuses(rig, "+33612300009", key=other)


async def test_an_address_is_counted_where_it_is_given(ruled: With) -> None:
    async with ruled(Rule("address", Per.IP, 600, 2)) as rig:
        to = numbers(8)
        assert [202, 202, 429] == await statuses(rig, *to[:3], client_ip=IP)
        assert [429] == await statuses(rig, to[3], client_ip=f"::ffff:{IP}")
        assert [202] == await statuses(rig, to[4], client_ip="203.0.113.8")
        assert [202] == await statuses(rig, to[5])


async def test_an_address_is_never_stored_in_the_clear(ruled: With) -> None:
    async with ruled(Rule("address", Per.IP, 600, 2)) as rig:
        await ask(rig, NUMBER, client_ip=IP)
        await rig.settle()

        assert rig.dump()["tally"]
        assert IP not in str(rig.dump())


@pytest.mark.parametrize("given", ["x", "", "localhost", "1.2.3.4:80", "fe80::1%eth0", "999.1.1.1"])
async def test_a_wrong_address_is_refused_and_nothing_is_stored(rig: Rig, given: str) -> None:
    before = rig.dump()
    answer = await ask(rig, NUMBER, client_ip=given)

    problem(answer, 400, "client_ip_invalid")
    assert not given or f'"{given}"' not in answer.text
    assert before == rig.dump()


async def test_all_numbers_of_a_recipient_must_be_allowed_and_the_phone_is_counted(
    ruled: With,
) -> None:
    countries = Countries(deny=frozenset({"DE"}))
    async with ruled(Rule("land", Per.COUNTRY, 600, 1), countries=countries) as rig:
        to = {"phone": NUMBER, "whatsapp": "+4915123456789"}
        problem(
            await rig.call("/otp/send", {"to": to, "workflow": "sms_only"}), 403, "country_refused"
        )
        to["whatsapp"] = "+12125550123"

        assert 202 == (await rig.call("/otp/send", {"to": to, "workflow": "sms_only"})).status_code
        assert 429 == (await ask(rig, "+33612300001")).status_code
        assert 202 == (await ask(rig, "+12125550123")).status_code


async def test_of_many_recipients_each_is_held_to_the_limits_alone(ruled: With) -> None:
    async with ruled(Rule("mine", Per.CLIENT, 600, 2)) as rig:
        recipients = [{"phone_number": one} for one in numbers(4)]
        body = {"recipients": recipients, "workflow": "sms_only", "client_ip": IP}
        answer = (await rig.call("/otp/send", body)).json()

        assert (2, 2) == (answer["accepted"], answer["refused"])
        assert ["limit_reached"] * 2 == [one["code"] for one in answer["results"][2:]]


async def test_replacing_counts_and_a_refused_one_leaves_the_old_one_running(ruled: With) -> None:
    async with ruled(Rule("mine", Per.CLIENT, 600, 2)) as rig:
        first = (await ask(rig, NUMBER)).json()["verification_id"]
        second = (await ask(rig, NUMBER, on_repeat="replace")).json()["verification_id"]
        third = await ask(rig, NUMBER, on_repeat="replace")

        problem(third, 429, "limit_reached")
        assert (Status.CANCELED, Status.PENDING) == (rig.status(first), rig.status(second))


# Windows.


async def test_a_number_begins_anew_with_the_end_of_its_window(ruled: With) -> None:
    async with ruled(Rule("number", Per.NUMBER, 120, 1)) as rig:
        rig.clock.advance(17)
        await rig.send(workflow="sms_only")
        rig.clock.advance(119.999)
        assert 429 == (await ask(rig, NUMBER)).status_code
        rig.clock.advance(0.001)
        assert 202 == (await ask(rig, NUMBER)).status_code


async def test_a_wide_window_stands_on_the_clock(ruled: With) -> None:
    async with ruled(Rule("mine", Per.CLIENT, 60, 1)) as rig:
        rig.clock.advance(50)
        to = numbers(3)
        first = await statuses(rig, *to[:2])
        facts = (await ask(rig, to[1])).json()
        rig.clock.advance(10)

        assert [202, 429] == first
        assert ("2026-11-21T12:01:00.000Z", 10) == (facts["reset"], facts["retry_after"])
        assert [202] == await statuses(rig, to[2])


async def test_limits_outlive_a_restart(ruled: With) -> None:
    async with ruled(PER_NUMBER, Rule("land", Per.COUNTRY, 600, 6)) as rig:
        keys = [await rig.client(f"c{at}") for at in range(6)]
        for key in keys[:5]:
            await ask(rig, NUMBER, key)
        await rig.restart()

        assert "number" == (await ask(rig, NUMBER)).json()["rule"]
        assert 202 == (await ask(rig, "+33612300001")).status_code
        assert "land" == (await ask(rig, "+33612300002")).json()["rule"]


async def test_what_is_refused_is_not_counted(ruled: With) -> None:
    async with ruled(PER_NUMBER, Rule("mine", Per.CLIENT, 600, 1)) as rig:
        await statuses(rig, *numbers(4))
        counted = [row for row in rig.dump()["counter"] if row[0].startswith(b"limit:")]

        assert [1] == [row[-1] for row in counted]
        assert 1 == len(rig.reads.latest(9))


async def test_a_rule_in_shadow_counts_and_tells_and_refuses_nothing(ruled: With) -> None:
    async with ruled(Rule("mine", Per.CLIENT, 600, 2, shadow=True)) as rig:
        found = noted(rig)

        assert [202] * 4 == await statuses(rig, *numbers(4))
        told = [one.facts for one in found if one.event == "limit_shadow"]
        assert [("mine", 2, 2), ("mine", 2, 3)] == [
            (one["rule"], one["limit"], one["used"]) for one in told
        ]


# The cool-down, over verifications.


async def test_canceling_is_no_way_around_the_cool_down(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    rig.clock.advance(10)
    await rig.call("/otp/cancel", {"number": NUMBER})
    facts = problem(await ask(rig, NUMBER), 429, "cool_down")
    rig.clock.advance(20)

    assert (20, "2026-11-21T12:00:30.000Z") == (facts["retry_after"], facts["reset"])
    assert 202 == (await ask(rig, NUMBER)).status_code


async def test_a_verified_code_leaves_no_cool_down(rig: Rig) -> None:
    sent = await rig.send(workflow="sms_only")
    await rig.verify(sent["verification_id"], rig.transport.submissions[0].code)

    assert 202 == (await ask(rig, NUMBER)).status_code


async def test_a_locked_one_leaves_a_cool_down(rig: Rig) -> None:
    sent = await rig.send(workflow="sms_only")
    code = rig.transport.submissions[0].code
    wrong = f"{(int(code) + 1) % 10**6:06}"
    for _ in range(5):
        await rig.verify(sent["verification_id"], wrong)

    problem(await ask(rig, NUMBER), 429, "cool_down")


async def test_the_cool_down_of_one_client_is_not_anothers(rig: Rig) -> None:
    other = await rig.client("other")
    await rig.send(workflow="sms_only")
    await rig.call("/otp/cancel", {"number": NUMBER})

    assert 202 == (await ask(rig, NUMBER, other)).status_code


# At once.


async def test_of_a_hundred_sends_to_a_number_at_once_five_are_accepted(ruled: With) -> None:
    """Fails when what a batch counts is not seen by its next decision (all of them are accepted),
    as it would be were the count looked up before the transaction."""
    async with ruled(PER_NUMBER) as rig:
        keys = [await rig.client(f"c{at}") for at in range(100)]
        answers = await asyncio.gather(*(ask(rig, NUMBER, key) for key in keys))
        await rig.settle()

        assert 5 == sum(one.status_code == 202 for one in answers)
        assert {"limit_reached"} == {
            one.json()["code"] for one in answers if one.status_code != 202
        }
        assert 5 == len(rig.transport.submissions)


@pytest.mark.parametrize(
    "rule", [Rule("range", Per.PREFIX, 600, 10, digits=6), Rule("mine", Per.CLIENT, 600, 10)]
)
async def test_of_a_hundred_sends_at_once_exactly_the_maximum_is_accepted(
    ruled: With, rule: Rule
) -> None:
    """Fails when `Tallies.sum` leaves out what the batch has added (tried: 100 are accepted)."""
    async with ruled(rule) as rig:
        answers = await asyncio.gather(*(ask(rig, to) for to in numbers(100)))
        await rig.settle()

        assert 10 == sum(one.status_code == 202 for one in answers)
        assert 10 == len(rig.transport.submissions)


async def test_one_batch_counts_in_its_order(ruled: With) -> None:
    async with ruled(Rule("land", Per.COUNTRY, 600, 3)) as rig:
        answers = await rig.together(*(ask(rig, to) for to in numbers(6)))

        assert [202] * 3 + [429] * 3 == [one.status_code for one in answers]


# Nodes.


async def test_nodes_add_to_rows_of_their_own_and_see_the_sum(ruled: With) -> None:
    rule = Rule("mine", Per.CLIENT, 600, 3)
    async with ruled(rule, node="a", guard=None) as one:
        await statuses(one, "+33612300001", "+33612300002")
        settings = replace(one.settings, policy=Policy(node="b", rules=(rule,), guard=None))
        twin = Rig(one.folder, one.template, one.clock, one.transport, settings)
        twin.key = one.key
        await twin.revive()
        try:
            assert [202, 429] == await statuses(twin, "+33612300003", "+33612300004")
            assert [429] == await statuses(one, "+33612300005")
        finally:
            await twin.stop()
        rows = [(row[1], row[2]) for row in one.dump()["tally"]]

        assert [("a", 2), ("b", 1)] == sorted(rows)


# The end of counts.


async def test_counts_are_swept_when_their_windows_are_over(ruled: With) -> None:
    async with ruled(PER_NUMBER, Rule("land", Per.COUNTRY, 600, 9)) as rig:
        await rig.send(workflow="sms_only")
        assert 0 == await limiting.sweep(rig.runtime, rig.clock.now())
        rig.clock.advance(86_400)
        await statuses(rig, "+33612300001")
        assert await limiting.sweep(rig.runtime, rig.clock.now())

        assert 1 == len(rig.dump()["counter"])
        assert rig.dump()["tally"]
        assert all(rig.moment(row[-1]) > rig.clock.now() for row in rig.dump()["tally"])


async def test_more_than_a_chunk_is_swept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "CHUNK", 2)
    await statuses(rig, *numbers(5))
    rig.clock.advance(86_400)
    await limiting.sweep(rig.runtime, rig.clock.now())

    assert ([], []) == (rig.dump()["counter"], rig.dump()["tally"])


# Countries.


async def test_a_denied_country_is_refused_before_anything_is_stored(ruled: With) -> None:
    async with ruled(countries=Countries(deny=frozenset({"DE"}))) as rig:
        before = rig.dump()
        facts = problem(await ask(rig, "+4915123456789"), 403, "country_refused")

        assert {"rule": "countries", "country": "DE"} == facts
        assert before == rig.dump()
        assert 202 == (await ask(rig, NUMBER)).status_code


async def test_a_monitored_country_is_logged_and_sent_to(ruled: With) -> None:
    async with ruled(countries=Countries(monitor=frozenset({"DE"}))) as rig:
        found = noted(rig)
        await statuses(rig, "+4915123456789", NUMBER)
        told = [one.facts["country"] for one in found if one.event == "country_monitored"]

        assert ["DE"] == told


def test_sums_start_at_nothing() -> None:
    assert (0, 0) == Tallies().sum(b"never seen")


async def test_the_cool_down_still_speaks_before_the_limit(rig: Rig) -> None:
    await rig.send(workflow="sms_only")
    rig.clock.advance(COOL_DOWN - 1)

    problem(await ask(rig, NUMBER), 429, "cool_down")
