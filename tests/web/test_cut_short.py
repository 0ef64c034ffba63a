"""Requests whose caller goes before the body is whole: nothing of them is taken."""

from typing import Any

import pytest
from rig import CALLBACK_KEY, NUMBER, Rig
from visitor import visitor

JSON, FORM = b"application/json", b"application/x-www-form-urlencoded"


async def cut(rig: Rig, path: str, body: bytes, kind: bytes, **headers: str) -> list[Any]:
    """Send so much of a body that was announced as longer, then go; what was answered."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": body, "more_body": True},
        {"type": "http.disconnect"},
    ]
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
        "headers": [
            (b"content-type", kind),
            (b"content-length", b"%d" % (len(body) + 4)),
            *((name.encode(), text.encode()) for name, text in given.items()),
        ],
    }
    answered: list[Any] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        answered.append(message)

    await rig.gateway.web(scope, receive, send)
    return answered


@pytest.mark.parametrize("path", ["/otp/send", "/otp/subscriptions"])
async def test_json_that_reads_as_whole_is_not(rig: Rig, path: str) -> None:
    body = b'{"to": "%s", "workflow": "sms", "url": "https://example.com"}' % NUMBER.encode()
    before = rig.dump()
    answered = await cut(rig, path, body, JSON, authorization=f"Bearer {rig.key}")

    assert ([], before) == (answered, rig.dump())


async def test_a_receipt_whose_word_is_cut_is_no_receipt(rig: Rig) -> None:
    """DELIVERED may have been the beginning of another word."""
    verification = (await rig.send(workflow="sms"))["verification_id"]
    reference = rig.attempts(verification)[0].reference
    before = rig.states(verification)
    body = f"message_id={reference}&status=DELIVERED"
    answered = await cut(rig, f"/otp/delivered/octopush/{CALLBACK_KEY}", body.encode(), FORM)

    assert ([], before) == (answered, rig.states(verification))


async def test_a_form_of_the_console_that_is_cut_does_nothing(rig: Rig) -> None:
    person = await visitor(rig)
    before = rig.dump()
    body = f"token={await person.token()}".encode()
    cookies = f"console={person.http.cookies['console']}"
    await cut(rig, "/console/logout", body, FORM, cookie=cookies, sec_fetch_site="same-origin")

    assert before == rig.dump()
    assert b"internal_error" not in rig.gateway.scrape("")[0]
