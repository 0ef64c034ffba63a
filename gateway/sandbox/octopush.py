"""Octopush: SMS and voice SMS, as its API answers.

What it accepts is in `octopush_requests`, how its receipts look in `octopush_receipts`. They go to
the one URL of the account, unsigned, only for premium SMS and for calls, and are not repeated when
nobody takes them.
"""

import math
import secrets
from collections import OrderedDict
from dataclasses import replace
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from gateway.sandbox import octopush_receipts
from gateway.sandbox.answers import json_answer, refusing
from gateway.sandbox.behaviour import Answer, Channel, behaviour_of
from gateway.sandbox.carrier import Carrier, Write
from gateway.sandbox.octopush_requests import (
    LOW_COST,
    PREMIUM,
    SMS,
    VOCAL,
    VOICE,
    Campaign,
    Submission,
    Wrong,
    authenticate,
    parse,
    refusal,
)
from gateway.sandbox.phones import Message
from gateway.sandbox.settings import Now

PREFIX = "/octopush/v1/public"
PRICES = {PREMIUM: 0.05, LOW_COST: 0.03, "voice_sms": 0.03, "vocal_sms": 0.03}
CREDIT = 1_000_000.0  # never used up: an empty account is nobody's demo
REQUEST_ID_LIVES = timedelta(hours=24)
REFUSED_FOR_GOOD = {Channel.SMS: 110, Channel.VOICE: 103}

_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_ESCAPED = frozenset("\f^{}\\[~]|€")  # two septets each


def routes(carrier: Carrier) -> list[Route]:
    """Its API."""
    account = _Account(carrier)
    return [
        Route(f"{PREFIX}/sms-campaign/send", refusing(account.send_sms), methods=["POST"]),
        Route(f"{PREFIX}/voice-campaign/send", refusing(account.send_voice), methods=["POST"]),
        Route(f"{PREFIX}/vocal-campaign/send", refusing(account.send_vocal), methods=["POST"]),
        Route(f"{PREFIX}/wallet/check-balance", refusing(account.balance), methods=["GET"]),
    ]


def segments(text: str) -> int:
    """How many SMS a text takes: 160 septets or 70 UTF-16 units; 153 or 67 each when split."""
    if set(text) <= _GSM | _GSM_ESCAPED:
        units, alone, part = len(text) + sum(sign in _GSM_ESCAPED for sign in text), 160, 153
    else:
        units, alone, part = len(text.encode("utf-16-le")) // 2, 70, 67
    return 1 if units <= alone else math.ceil(units / part)


class _RequestIds:
    """The request ids of the last day, and of the last `keep` requests."""

    def __init__(self, keep: int, now: Now) -> None:
        self._keep = keep
        self._now = now
        self._ids: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    def add(self, request_id: str, key: int) -> None:
        """Remember an accepted request by the key of its first message."""
        self._ids.pop(request_id, None)
        self._ids[request_id] = (self._now(), key)
        if len(self._ids) > self._keep:
            self._ids.popitem(last=False)

    def get(self, request_id: str) -> int | None:
        """The key remembered with it, if it was less than a day ago."""
        at, key = self._ids.get(request_id, (None, None))
        return key if at and self._now() - at < REQUEST_ID_LIVES else None


class _Account:
    """One account: its credit and what it has asked for."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._request_ids = _RequestIds(carrier.settings.keep, carrier.now)
        self._credit = CREDIT
        self._calls = 0

    async def send_sms(self, request: Request) -> Response:
        return await self._send(SMS, request)

    async def send_voice(self, request: Request) -> Response:
        return await self._send(VOICE, request)

    async def send_vocal(self, request: Request) -> Response:
        return await self._send(VOCAL, request)

    async def balance(self, request: Request) -> Response:
        product = request.query_params.get("product_name", PREMIUM)
        authenticate(self._carrier.settings, request.headers)
        if product not in PRICES:
            raise Wrong(112)
        amount = int(round(self._credit / PRICES[product], 4))
        answer: dict[str, object] = {"amount": amount, "unit": product}
        if request.query_params.get("with_details") == "true":
            answer["wallet_packs"] = [{"id": 1, "credit": amount, "expiration_date": None}]
        return json_answer(answer)

    async def _send(self, campaign: Campaign, request: Request) -> Response:
        authenticate(self._carrier.settings, request.headers)
        submission = parse(campaign, request.headers, await request.body())
        self._refuse_repetition(submission)
        ticket = f"{campaign.ticket}_{secrets.token_hex(7)[:13]}"
        if submission.simulated:
            return json_answer(self._order(submission, ticket, cost=0.0), 201)
        return await self._take(submission, ticket)

    async def _take(self, submission: Submission, ticket: str) -> Response:
        """Of several recipients the first decides how the call is answered."""
        channel = submission.campaign.channel
        _, answer = self._carrier.decide(submission.numbers[0], channel)
        messages = self._add(submission, ticket, answer)
        if not answer.accepts:
            return _answer_instead(answer, channel)
        if submission.request_id:
            self._request_ids.add(submission.request_id, messages[0].key)
        stories = [
            self._carrier.play(message, self._writer(submission, message)) for message in messages
        ]
        response = json_answer(self._order(submission, ticket, cost=_cost(submission)), 201)
        return await self._carrier.give(answer, response, stories)

    def _refuse_repetition(self, submission: Submission) -> None:
        key = self._request_ids.get(submission.request_id or "")
        if key is not None:
            self._carrier.phones.change(
                key, lambda message: replace(message, repeats=message.repeats + 1)
            )
            raise Wrong(120)

    def _add(self, submission: Submission, ticket: str, answer: Answer) -> list[Message]:
        channel = submission.campaign.channel
        return [
            self._carrier.phones.add(
                Message(
                    id=ticket,
                    channel=channel,
                    number=number,
                    text=text,
                    sender=submission.sender,
                    at=self._carrier.now(),
                    client_ref=submission.request_id,
                    behaviour=behaviour_of(number, channel),
                    answer=answer,
                )
            )
            for number, text in zip(submission.numbers, submission.texts, strict=True)
        ]

    def _writer(self, submission: Submission, message: Message) -> Write | None:
        """Every second call is reported in the older shape."""
        url = self._carrier.settings.octopush_callback_url
        if url is None or submission.type == LOW_COST:
            return None
        voice = message.channel is Channel.VOICE
        self._calls += voice
        older = voice and self._calls % 2 == 0
        return octopush_receipts.writer(url, message, price=PRICES[submission.type], older=older)

    def _order(self, submission: Submission, ticket: str, *, cost: float) -> dict[str, object]:
        """The answer to an accepted request."""
        self._credit = round(self._credit - cost, 4)
        text = submission.texts[0]
        if submission.campaign is SMS:
            size = {"number_of_sms_needed": segments(text)}
        else:
            size = {"estimated_duration": max(10, len(text) // 15)}
        return {
            f"{submission.campaign.ticket}_ticket": ticket,
            "number_of_contacts": len(submission.numbers),
            "total_cost": cost,
            **size,
            "residual_credit": self._credit,
        }


def _cost(submission: Submission) -> float:
    sms = submission.campaign is SMS
    units = sum(segments(text) if sms else 1 for text in submission.texts)
    return round(units * PRICES[submission.type], 4)


def _answer_instead(answer: Answer, channel: Channel) -> Response:
    """No throttling is documented, and a server that is down does not speak JSON."""
    if answer is Answer.THROTTLED:
        body = {"code": 429, "message": "Too Many Attempts."}
        return json_answer(body, 429, {"Retry-After": "1"})
    if answer is Answer.ERROR:
        return HTMLResponse("<h1>Internal Server Error</h1>", 500)
    return json_answer(refusal(REFUSED_FOR_GOOD[channel]), 400)
