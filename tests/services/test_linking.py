"""Templates end to end: what the person reads, what a check demands, what never joins."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fakes import Clock
from rig import NUMBER, Rig, make_settings, problem

from gateway.domain import wording
from gateway.store.records import Source

TABLES = {
    "mine": {"params": ["name"], "en": {"text": "{name}, {code} is yours for {ttl}."}},
    "app": {"webotp": "example.com", "en": {"text": "{code}"}},
}
PAID = {"template": "payment", "amount": "12.50 EUR", "payee": "Café Zoé"}


@pytest.fixture
async def rig(tmp_path: Path, migrated: Path, clock: Clock):  # type: ignore[no-untyped-def]
    """The rig with two templates of its own."""
    mistakes: dict[str, str] = {}
    made = wording.read(TABLES, mistakes)
    assert {} == mistakes
    settings = dataclasses.replace(make_settings(tmp_path), templates=made)
    async with Rig(tmp_path, migrated, clock, settings=settings) as started:
        yield started


async def send(rig: Rig, to: Any = NUMBER, **more: Any) -> dict[str, Any]:
    return await rig.send(to, workflow="sms", **more)


async def refused(rig: Rig, code: str, **more: Any) -> dict[str, Any]:
    answer = await rig.call("/otp/send", {"to": NUMBER, "workflow": "sms", **more})
    assert [] == rig.transport.submissions
    return problem(answer, 400, code)


async def verify(rig: Rig, sent: dict[str, Any], **more: Any) -> Any:
    code = rig.transport.submissions[-1].code
    body = {"verification_id": sent["verification_id"], "code": code, **more}
    return await rig.call("/otp/verify", body)


# What the person reads.


async def test_the_text_is_that_of_template_locale_and_life(rig: Rig) -> None:
    await send(rig, template="login", locale="fr-CA", ttl=600)

    assert rig.transport.submissions[0].text.endswith(
        " est votre code de connexion ACME. Il est valable 10 minutes. Ne le donnez à personne."
    )


async def test_a_resend_names_the_life_that_is_left(rig: Rig) -> None:
    """Never more than the stored expiry allows (F46)."""
    await send(rig, template="login", ttl=300)
    rig.clock.advance(125)
    await send(rig, template="login", ttl=600)

    assert [" for 5 minutes.", " for 2 minutes."] == [
        one.text[one.text.index(" for ") : one.text.index(" Do")]
        for one in rig.transport.submissions
    ]


async def test_parameters_are_filled_in_and_survive_a_restart(rig: Rig) -> None:
    sent = await send(rig, template="mine", params={"name": "Zoé"})
    await rig.restart()
    rig.clock.advance(61)
    await rig.reconcile()

    assert 2 == len(rig.transport.submissions)
    assert rig.transport.submissions[0].text.startswith("Zoé, ")
    assert "Zoé, " in rig.transport.submissions[1].text
    assert sent["status"] == "PENDING"


async def test_a_webotp_line_ends_the_short_message(rig: Rig) -> None:
    await send(rig, template="app")
    sms = rig.transport.submissions[0]

    assert f"{sms.code}\n@example.com #{sms.code}" == sms.text


async def test_a_text_of_the_caller_needs_the_scope(rig: Rig) -> None:
    body = {"to": NUMBER, "workflow": "sms", "text": "Type {code}, {brand} asks."}
    answer = await rig.call("/otp/send", body)
    key = await rig.client("writer", "send text")
    sent = await rig.call("/otp/send", body, key=key)
    await rig.settle()

    assert {"scope": "text"} == problem(answer, 403, "text_not_allowed")
    assert 202 == sent.status_code
    (sms,) = rig.transport.submissions
    assert f"Type {sms.code}, ACME asks." == sms.text


async def test_what_fills_a_text_is_not_in_the_database_in_the_clear(rig: Rig) -> None:
    key = await rig.client("writer", "send text")
    text = "Secretly {code} for {amount} to {payee}"
    body = {"to": NUMBER, "workflow": "sms", **PAID, "text": text}
    assert 202 == (await rig.call("/otp/send", body, key=key)).status_code
    dump = repr(rig.dump())

    assert [] == [one for one in ("12.50", "Caf", "Zo\\xc3", "Secretly") if one in dump]


# What does not fit.


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"template": "nope"}, "unknown_template"),
        ({"template": "mine"}, "params_missing"),
        ({"template": "mine", "params": {"name": "x", "b": "y"}}, "params_not_allowed"),
        ({"template": "mine", "params": {"name": "www.evil.example"}}, "params_not_allowed"),
        ({"template": "mine", "params": {"name": 5}}, "invalid_request"),
        ({"template": "payment"}, "amount_required"),
        ({"template": "payment", "amount": "1 EUR"}, "invalid_request"),
        ({"template": "payment", "amount": " ", "payee": "x"}, "invalid_request"),
        ({"template": "login", "amount": "1 EUR", "payee": "x"}, "amount_not_shown"),
        ({"locale": "French please"}, "invalid_request"),
        ({"locale": ""}, "invalid_request"),
    ],
)
async def test_a_request_that_does_not_fit_its_template_is_refused(
    rig: Rig, more: dict[str, Any], code: str
) -> None:
    await refused(rig, code, **more)


# Dynamic linking.


async def test_a_payment_is_verified_with_the_same_amount_and_payee(rig: Rig) -> None:
    sent = await send(rig, **PAID)
    answer = await verify(rig, sent, amount=" 12.50  EUR", payee="Cafe\u0301 Zoé")

    assert (200, "VERIFIED") == (answer.status_code, answer.json()["status"])


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"amount": "12.51 EUR", "payee": "Café Zoé"},
        {"amount": "12.50 EUR", "payee": "Cafe Zoe"},
    ],
)
async def test_another_amount_or_payee_is_refused_and_not_counted(
    rig: Rig, more: dict[str, str]
) -> None:
    sent = await send(rig, **PAID)
    problem(await verify(rig, sent, **more), 400, "amount_mismatch")
    current = rig.record(sent["verification_id"]).verification

    assert ("PENDING", 0) == (current.status, current.checks_used)


async def test_half_of_it_is_no_request(rig: Rig) -> None:
    sent = await send(rig, **PAID)

    problem(await verify(rig, sent, amount="12.50 EUR"), 400, "invalid_request")


async def test_a_login_code_confirms_no_payment(rig: Rig) -> None:
    sent = await send(rig, template="login")

    problem(await verify(rig, sent, amount="12.50 EUR", payee="x"), 400, "amount_mismatch")


async def test_a_payment_joins_neither_a_login_nor_another_payment(rig: Rig) -> None:
    """And two codes for two purposes are two codes."""
    for more in ({"template": "login"}, PAID, {**PAID, "amount": "13 EUR"}, {"template": "reset"}):
        assert not (await send(rig, **more))["joined"]
    codes = [one.code for one in rig.transport.submissions]

    assert 4 == len(rig.dump()["verification"])
    assert len(codes) == len(set(codes))


async def test_the_same_payment_is_joined(rig: Rig) -> None:
    first = await send(rig, **PAID)
    rig.clock.advance(31)
    second = await send(rig, **PAID)

    assert (first["verification_id"], True) == (second["verification_id"], second["joined"])


# Several at once.


async def test_a_number_with_two_purposes_running_is_ambiguous(rig: Rig) -> None:
    await send(rig, template="login")
    await send(rig, template="reset")
    code = rig.transport.submissions[0].code
    answer = await rig.call("/otp/verify", {"number": NUMBER, "code": code})

    assert {"templates": ["login", "reset"]} == problem(answer, 400, "ambiguous")
    named = {"number": NUMBER, "code": code, "template": "login"}
    assert 200 == (await rig.call("/otp/verify", named)).status_code


async def test_one_that_has_run_out_makes_nothing_ambiguous(rig: Rig) -> None:
    await send(rig, template="login", ttl=200)
    rig.clock.advance(201)
    await send(rig, template="reset")
    code = rig.transport.submissions[-1].code
    answer = await rig.call("/otp/verify", {"number": NUMBER, "code": code})

    assert 200 == answer.status_code


async def test_the_log_of_a_payment_is_like_any_other(rig: Rig) -> None:
    sent = await send(rig, **PAID)
    await verify(rig, sent, amount="12.50 EUR", payee="Café Zoé")

    assert Source.CHECK == rig.record(sent["verification_id"]).log[-1].source
