"""`gateway routes check`: what a recorded callback says, and whether it would be let in."""

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any

import orjson
import pytest
from acceptance.test_cli import Home, _one_message, forks, home
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["forks", "home"]  # the fixtures of test_cli

DATA = Path(__file__).parents[1] / "providers" / "data" / "generic"
TARGET = "/otp/delivered/route/s3cret"
DATE = "Sat, 21 Nov 2026 10:00:10 GMT"
AT = 1795255210


def recorded(
    body: bytes, *headers: str, method: str = "POST", target: str = TARGET, end: str = "\r\n"
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: otp.example.com", f"Date: {DATE}", *headers]
    return end.join([*lines, "", ""]).encode() + body


def write(home: Home, content: bytes, name: str = "callback.http") -> str:
    (home.folder / name).write_bytes(content)
    return name


INFOBIP = (DATA / "infobip" / "delivered.json").read_bytes()
RECEIPT = {
    "word": "DELIVERED/5",
    "state": "DELIVERED",
    "reference": "m_1",
    "attempt_id": "0193-a1",
    "reason": None,
    "permanent": False,
    "recipient": "•••",
    "time": "2026-11-21T10:00:05.000+0000",
    "cost": "0.01 EUR",
}


def test_a_good_callback(home: Home) -> None:
    file = write(home, recorded(INFOBIP))
    shown = home.json("routes", "check", "infobip", file, CALLBACK_SECRET="s3cret")
    plain = home.run("routes", "check", "infobip", file, CALLBACK_SECRET="s3cret")

    assert {"definition": "infobip", "signature": "good", "receipts": [RECEIPT]} == shown
    assert plain.returncode == 0
    assert "signature: good" in plain.stdout
    assert "DELIVERED/5" in plain.stdout
    assert "33600000000" not in plain.stdout
    assert "s3cret" not in plain.stdout + plain.stderr


@pytest.mark.parametrize("variables", [{}, {"CALLBACK_SECRET": "other"}])
def test_a_bad_signature_ends_with_1_and_its_receipts_are_shown(
    home: Home, variables: dict[str, str]
) -> None:
    done = home.run("routes", "check", "infobip", write(home, recorded(INFOBIP)), **variables)

    assert done.returncode == 1
    assert "signature: bad" in done.stdout
    assert "DELIVERED/5" in done.stdout
    assert "--secret" in done.stderr


def test_one_of_several_secrets_is_enough(home: Home) -> None:
    file = write(home, recorded(INFOBIP, end="\n"))
    given = ("--secret", "OLD", "--secret", "NEW")

    done = home.run("routes", "check", "infobip", file, *given, OLD="gone", NEW="s3cret")

    assert done.returncode == 0, done.stderr


def test_a_signature_over_time_and_body(home: Home) -> None:
    """The body ends where its Content-Length says, whatever an editor has added."""
    key = Ed25519PrivateKey.generate()
    body = (DATA / "telnyx" / "delivered.json").read_bytes()
    signature = base64.b64encode(key.sign(f"{AT}|".encode() + body)).decode()
    headers = [f"Content-Length: {len(body)}", f"Telnyx-Signature-Ed25519: {signature}"]
    file = write(home, recorded(body, *headers, f"Telnyx-Timestamp: {AT}") + b"\n\n")
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    good = home.json("routes", "check", "telnyx", file, CALLBACK_SECRET=public)
    late = home.run(
        "routes", "check", "telnyx", file, "--at", "2026-11-21T11:00:00", CALLBACK_SECRET=public
    )

    assert ("good", "delivered") == (good["signature"], good["receipts"][0]["word"])
    assert late.returncode == 1


def test_a_signature_over_the_public_url(home: Home) -> None:
    body = (DATA / "bird" / "delivered.json").read_bytes()
    url = "https://otp.acme.example/otp/delivered/bird"
    signed = f"{AT}\n{url}\n".encode() + hashlib.sha256(body).digest()
    signature = base64.b64encode(hmac.digest(b"s3cret", signed, "sha256")).decode()
    file = write(
        home,
        recorded(
            body, f"messagebird-signature: {signature}", f"messagebird-request-timestamp: {AT}"
        ),
    )
    told = home.run("routes", "check", "bird", file, "--url", url, CALLBACK_SECRET="s3cret")
    untold = home.run("routes", "check", "bird", file, CALLBACK_SECRET="s3cret")

    assert (0, 1) == (told.returncode, untold.returncode)


def test_everything_may_stand_in_the_url(home: Home) -> None:
    query = (DATA / "messagebird" / "delivered.txt").read_text()
    file = write(home, recorded(b"", method="GET", target=f"{TARGET}?{query}"))
    done = home.run("routes", "check", "messagebird", file, "--json")
    shown: Any = orjson.loads(done.stdout)

    assert done.returncode == 1
    assert "delivered" == shown["receipts"][0]["word"]


def test_what_cannot_be_read_is_told(home: Home) -> None:
    items = orjson.loads(INFOBIP)["results"]
    spoiled = orjson.dumps({"results": [7, *items]})
    file = write(home, recorded(spoiled))
    empty = write(home, recorded(b'{"results":[]}'), "empty.http")
    done = home.run("routes", "check", "infobip", file, CALLBACK_SECRET="s3cret")
    nothing = home.run("routes", "check", "infobip", empty, CALLBACK_SECRET="s3cret")

    assert (0, 0) == (done.returncode, nothing.returncode)
    assert "not readable: not an object" in done.stdout
    assert "DELIVERED/5" in done.stdout
    assert "no receipts in it" in nothing.stdout


def test_an_own_definition_is_checked_by_its_keys(home: Home) -> None:
    own = write(home, b'vendor = "ACME"\ncolour = "red"\n', "own.toml")
    done = home.run("routes", "check", own, write(home, recorded(INFOBIP)))

    assert done.returncode == 2
    assert "colour: is not a key here" in done.stderr
    assert "sheet.proof: is missing" in done.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no recorded request"),
        (b"hello\n\n", "is no recorded request"),
        (b"GET nowhere HTTP/1.1\n\n", "does not begin with a request line"),
        (b"GET /x HTTP/1.1\nno header\n\n", "is no header"),
        (b"GET /x HTTP/1.1\nDate: yesterday\n\n", "is no recorded request"),
    ],
)
def test_a_file_that_is_no_callback_ends_with_2(home: Home, content: bytes, says: str) -> None:
    _one_message(home.run("routes", "check", "infobip", write(home, content)), 2, says)


def test_what_is_not_there_ends_with_2(home: Home) -> None:
    file = write(home, recorded(INFOBIP))

    _one_message(home.run("routes", "check", "infobip", "none.http"), 2, "cannot be read")
    _one_message(home.run("routes", "check", "nobody", file), 2, "is one of bird, infobip")
    _one_message(home.run("routes", "check", "none.toml", file), 2, "cannot be read")
    _one_message(home.run("routes", "check", "infobip", file, "--secret", "NONE"), 2, "NONE")
    bad = home.run("routes", "check", "telnyx", file, CALLBACK_SECRET="no key")
    _one_message(bad, 2, "callback_secret")


def test_help_of_check_names_its_options_and_exit_codes(home: Home) -> None:
    done = home.run("routes", "check", "--help")
    group = home.run("routes", "--help")

    assert (0, 0) == (done.returncode, group.returncode)
    for word in ("--secret", "--url", "--at", "--json", "Exit codes", "CALLBACK_FILE"):
        assert word in done.stdout
    assert "check" in group.stdout
    assert "--config" in group.stdout
