"""What holds of every provider at once: each has its cases, and none can bring a code or a number
past the one place where a vendor's word comes in."""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from providers.cases import CALLBACK, SECRET, UNKNOWN_WORD, ProviderCases
from rig import Rig

from gateway.ports import Receipt
from gateway.providers import PROVIDERS
from gateway.services.case import Note
from gateway.services.receive import Receive


def every_case() -> list[type[ProviderCases]]:
    """The cases of all providers, each class that pytest collects."""
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.providers.{file.stem}")  # as pytest names it
    return [one for one in below(ProviderCases) if one.__name__.startswith("Test")]


def below(cases: type[ProviderCases]) -> Iterator[type[ProviderCases]]:
    for one in cases.__subclasses__():
        yield one
        yield from below(one)


def test_no_provider_is_without_cases() -> None:
    """The runner's seven kinds of wrong signature, its searches and the rest are run for each."""
    runner = {name for name in vars(ProviderCases) if name.startswith("test_")}
    missing = {
        f"{one.__name__}.{name}"
        for one in every_case()
        for name in runner
        if not callable(getattr(one, name, None))
    }

    assert set(PROVIDERS) == {one.provider for one in every_case()}
    assert set() == missing


def said(cases: type[ProviderCases], word: str) -> Receipt:
    """What the provider reads of a callback that says the word."""
    case = cases()
    callback = case.sign(replace(CALLBACK, body=case.receipt(word)), SECRET)
    (receipt,) = case.make(SECRET).receipts(callback)
    assert isinstance(receipt, Receipt)
    assert word == receipt.word
    return receipt


async def test_no_vendors_word_brings_a_code_or_a_number(rig: Rig) -> None:
    """Into the store, the log or an answer; what support looks up stays readable. (Seen to fail
    when `Case.receive` takes the word as it comes.)"""
    notes: list[str] = []
    rig.after = lambda item: notes.append(repr(item)) if isinstance(item, Note) else None
    for at, cases in enumerate(every_case(), start=10):
        number = f"+336123456{at}"
        sent = await rig.send(number, workflow="sms_only")
        submission = rig.transport.submissions[-1]
        hidden = [
            submission.code,
            number,
            number[3:],
            f"6-12-34-56-{at}",
            "-".join(submission.code),
        ]
        word = ":".join([UNKNOWN_WORD, *hidden, "30003", "0x58"])
        receipt = said(cases, word)
        (attempt,) = rig.attempts(sent["verification_id"])
        about: dict[str, Any] = {"attempt_id": str(attempt.id), "recipient": None}
        gone = replace(receipt, attempt_id=str(UUID(int=7)), recipient=None)
        items = (replace(receipt, **about), gone)
        await rig.runtime.ledger.submit(Receive("octopush", "octopush", None, items))
        status = await rig.call("/otp/status", {"verification_id": sent["verification_id"]})
        shown = status.text + repr(rig.dump()) + repr(rig.attempts(sent["verification_id"]))
        logged = " ".join(notes)

        assert [] == [one for one in hidden if one in shown], cases
        assert [] == [one for one in hidden if one in logged], cases
        assert f"{UNKNOWN_WORD}:•••:+•••:•••:•••:•••:30003:0x58" in status.text
