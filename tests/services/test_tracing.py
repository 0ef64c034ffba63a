"""One trace from the caller's request to the last receipt, whatever process does the next step."""

import dataclasses
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from endpoints import URL, FakeEndpoints, failing, later, notified, subscribe
from fakes import Clock, answering, raising
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from rig import NUMBER, Rig, make_settings

from gateway.ports import NO_TRACER, Lost, RouteSettings
from gateway.traces import OtelTracer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"


class Collector(InMemorySpanExporter):
    """It outlives the processes that export to it."""

    def shutdown(self) -> None:
        """One of them has ended."""


@pytest.fixture
def exported() -> InMemorySpanExporter:
    """The test collector."""
    return Collector()


@pytest.fixture
async def traced(
    tmp_path: Path, migrated: Path, clock: Clock, exported: InMemorySpanExporter
) -> AsyncIterator[Rig]:
    """A gateway that keeps spans; the route `octopush_voice` lets its provider know of them."""
    settings = make_settings(tmp_path)
    given = RouteSettings(name="octopush_voice", channel="voice", account="o", traceparent=True)
    routes = {"octopush_voice": given}
    settings = dataclasses.replace(settings, routes=routes)
    rig = Rig(tmp_path, migrated, clock, settings=settings)
    rig.tracer = OtelTracer(SimpleSpanProcessor(exported))
    async with rig:
        yield rig


async def send(rig: Rig, traceparent: str | None = GIVEN, **more: Any) -> httpx.Response:
    """A request of a caller that is in a trace."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {rig.key}"}
    if traceparent is not None:
        headers["traceparent"] = traceparent
    answer = await rig.http.post(
        "/otp/send", content=orjson.dumps({"to": NUMBER, **more}), headers=headers
    )
    await rig.settle()
    return answer


def spans(exported: InMemorySpanExporter) -> Sequence[ReadableSpan]:
    return exported.get_finished_spans()


def named(exported: InMemorySpanExporter) -> list[str]:
    """Names and what came of them, in the order in which they ended."""
    return [
        " ".join([one.name, *(str(fact) for fact in [(one.attributes or {}).get(key)] if fact)])
        for one in spans(exported)
        for key in [
            {
                "otp.dispatch": "otp.channel",
                "otp.fallback": "otp.attempt.cause",
                "otp.receipt": "otp.receipt.verdict",
                "otp.ended": "otp.status",
            }.get(one.name, "otp.outcome")
        ]
    ]


async def test_one_trace_over_accept_dispatch_fallback_receipt_and_end(
    traced: Rig, exported: InMemorySpanExporter
) -> None:
    """Over three processes: a clean restart and a crash in between."""
    sent = (await send(traced)).json()
    await traced.stop()
    traced.tracer = OtelTracer(SimpleSpanProcessor(exported))
    await traced.revive()
    await traced.crash()
    await traced.revive()
    await traced.reconcile(121)  # asks the messenger
    await traced.reconcile(5)
    submission = traced.transport.submissions[-1]
    await traced.octopush_receipt(submission, "DELIVERED")
    await traced.octopush_receipt(submission, "DELIVERED")
    checked = await traced.verify(sent["verification_id"], submission.code)

    assert 200 == checked.status_code

    assert [
        "otp.send stored",
        "otp.dispatch messenger",
        "otp.receipt late",
        "otp.fallback silence",
        "otp.dispatch sms",
        "otp.receipt applied",
        "otp.receipt repeated",
        "otp.ended VERIFIED",
    ] == named(exported)

    first, *rest = spans(exported)
    assert {TRACE} == {f"{one.context.trace_id:032x}" for one in spans(exported) if one.context}
    assert first.parent is not None
    assert PARENT == f"{first.parent.span_id:016x}"
    assert first.context is not None
    assert {first.context.span_id} == {one.parent.span_id for one in rest if one.parent}
    assert len(rest) == sum(one.parent is not None for one in rest)
    assert {sent["verification_id"]} == {
        (one.attributes or {})["otp.verification.id"] for one in rest
    }


@pytest.mark.parametrize("header", [None, "nonsense", f"00-{TRACE}-{PARENT}-00"])
async def test_without_a_trace_nothing_is_stored_or_kept(
    traced: Rig, exported: InMemorySpanExporter, header: str | None
) -> None:
    sent = (await send(traced, header)).json()

    assert traced.record(sent["verification_id"]).verification.trace is None
    assert () == spans(exported)


async def test_while_nobody_keeps_spans_no_trace_is_stored(rig: Rig) -> None:
    sent = (await send(rig)).json()

    assert rig.record(sent["verification_id"]).verification.trace is None


async def test_rows_from_when_somebody_did_go_on_without(
    traced: Rig, exported: InMemorySpanExporter
) -> None:
    sent = (await send(traced)).json()
    exported.clear()
    traced.tracer = NO_TRACER
    await traced.restart()
    await traced.reconcile(121)
    await traced.reconcile(5)

    assert ["messenger:SENT", "sms:SENT"] == traced.states(sent["verification_id"])
    assert () == spans(exported)


async def test_a_call_that_brought_no_answer_is_marked(
    traced: Rig, exported: InMemorySpanExporter
) -> None:
    traced.transport.script("sms-campaign", raising(Lost("read_timeout")))
    await send(traced, workflow="sms_only")
    dispatch = spans(exported)[-1]

    assert ("otp.dispatch", StatusCode.ERROR) == (dispatch.name, dispatch.status.status_code)
    assert "unknown" == (dispatch.attributes or {})["otp.outcome"]


async def test_a_refused_request_is_a_span_too(traced: Rig, exported: InMemorySpanExporter) -> None:
    await send(traced)
    answer = await send(traced)

    assert 429 == answer.status_code
    assert "otp.send refused" == named(exported)[-1]


async def test_a_provider_learns_of_our_trace_only_where_its_route_allows_it(
    traced: Rig, exported: InMemorySpanExporter
) -> None:
    traced.transport.script("sms-campaign", answering(400, {"code": 111}))
    await send(traced, workflow="sms")
    sms, voice = traced.transport.submissions
    dispatched = [one for one in spans(exported) if one.name == "otp.dispatch"][-1]

    assert "traceparent" not in sms.request.headers
    assert dispatched.context is not None
    assert (
        f"00-{TRACE}-{dispatched.context.span_id:016x}-01" == voice.request.headers["traceparent"]
    )


async def test_spans_hold_no_number_code_word_or_secret(
    traced: Rig, exported: InMemorySpanExporter
) -> None:
    await send(traced, reference="order-of-33612345678")
    await traced.reconcile(121)
    await traced.reconcile(5)
    submission = traced.transport.submissions[-1]
    await traced.octopush_receipt(submission, f"DELIVERED to {NUMBER}")
    text = "\n".join(one.to_json() for one in spans(exported))

    assert len(spans(exported)) >= 5
    for secret in (NUMBER, NUMBER[1:], NUMBER[3:], submission.code, traced.key, "DELIVERED to"):
        assert secret not in re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", text)


async def test_a_webhook_is_in_the_trace_of_its_verification(
    tmp_path: Path, migrated: Path, clock: Clock, exported: InMemorySpanExporter
) -> None:
    """Another process may deliver it: the trace is read with the event."""
    endpoints = FakeEndpoints()
    rig = Rig(tmp_path, migrated, clock, webhooks=endpoints)
    rig.tracer = OtelTracer(SimpleSpanProcessor(exported))
    async with rig:
        await subscribe(rig)
        endpoints.at[URL] = failing(500, times=1)
        await send(rig)
        await send(rig, None, to="+33612345679")
        await rig.settle()
        await notified(rig)
        await later(rig, 600)
    spans = [one for one in exported.get_finished_spans() if one.name == "otp.webhook"]

    assert ["refused", "delivered"] == [(one.attributes or {})["otp.outcome"] for one in spans]
    assert {int(TRACE, 16)} == {one.context.trace_id for one in spans if one.context is not None}
    assert StatusCode.ERROR is spans[0].status.status_code
    assert URL not in str([one.attributes for one in spans])
