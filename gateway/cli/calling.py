"""A caller of a running gateway: `gateway send`, and the hands of the demo. Plain urllib."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib import error, request
from urllib.parse import urlsplit

import typer

from gateway.cli import trying
from gateway.cli.output import Code, Failure, Json, console, dump, say, table

TIMEOUT = 30.0  # seconds
_LOOPBACK = ("localhost", "127.", "::1")


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body."""

    status: int
    body: dict[str, Any]


class _Stay(request.HTTPRedirectHandler):
    """A redirect is an answer like any other: the key goes nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def call(url: str, body: Mapping[str, Any] | None = None, key: str | None = None) -> Answer:
    """GET, or POST of JSON. Raises Failure when nothing that is JSON comes back."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    content = json.dumps(body).encode() if body is not None else None
    asked = request.Request(url, content, headers)  # noqa: S310  (http(s): `send` sees to it)
    handlers: list[request.BaseHandler] = [_Stay()]
    if (urlsplit(url).hostname or "").startswith(_LOOPBACK):
        handlers.append(request.ProxyHandler({}))
    try:
        with request.build_opener(*handlers).open(asked, timeout=TIMEOUT) as answer:
            return _read(url, answer.status, answer.read())
    except error.HTTPError as refused:
        with refused:
            return _read(url, refused.code, refused.read())
    except error.URLError as failed:
        why = getattr(failed.reason, "strerror", None) or str(failed.reason)
        raise Failure(f"cannot reach {url}: {why}. Is `gateway serve` running there?") from None
    except OSError as failed:  # while the answer was read
        raise Failure(f"no answer from {url}: {failed}") from None


def _read(url: str, status: int, content: bytes) -> Answer:
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Failure(f"{url} answers {status}, and not as a gateway does. Check --url")
    return Answer(status, body)


def send(
    number: Annotated[
        str | None,
        typer.Argument(metavar="NUMBER", help="Where to: +33612345678, or an e-mail address."),
    ] = None,
    *,
    to: Annotated[str | None, typer.Option(metavar="NUMBER", help="The same.")] = None,
    route: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Exactly this route, and follow the message until it has arrived or failed: how "
            "to try a new account. The key needs the scope operate.",
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="With --route: how long to follow it.")
    ] = 60.0,
    workflow: Annotated[
        str | None, typer.Option(metavar="NAME", help="One of gateway.toml's; default: default.")
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="This channel alone, without fallback: sms, voice…"),
    ] = None,
    ttl: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="How long the code is valid: 60 to 600.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Your own id for it.")
    ] = None,
    code_length: Annotated[int | None, typer.Option(metavar="DIGITS", help="4 to 10.")] = None,
    template: Annotated[
        str | None, typer.Option(metavar="NAME", help="login, reset…; see gateway templates.")
    ] = None,
    locale: Annotated[
        str | None, typer.Option(metavar="LOCALE", help="The language of the text: fr, fr-CA.")
    ] = None,
    url: Annotated[
        str, typer.Option(envvar="GATEWAY_URL", metavar="URL", help="Where the gateway is.")
    ] = "http://127.0.0.1:8080",
    key: Annotated[
        str | None,
        typer.Option(
            envvar="GATEWAY_API_KEY",
            metavar="KEY",
            show_default=False,
            help="An API key. Better in the variable: others on this machine see command lines.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a code through a running gateway, as a client would.

    With --route: 0 when the message has arrived, 1 when it failed or nothing was heard of it.
    """
    _check_address(url, key)
    if route is not None and (workflow is not None or channel is not None):
        raise Failure("--route: the workflow and the channel are the route's own", Code.USAGE)
    whom = trying.number_of(number, to)
    given = {
        "to": {"email": whom} if "@" in whom else whom,
        "workflow": f"route:{route}" if route is not None else workflow,
        "channel": channel,
        "ttl": ttl,
        "reference": reference,
        "code_length": code_length,
        "template": template,
        "locale": locale,
    }
    body = {name: value for name, value in given.items() if value is not None}
    answer = call(f"{url.rstrip('/')}/otp/send", body, key)
    if as_json and (route is None or answer.status != 202):
        dump(answer.body)
    _check_accepted(answer)
    if route is None:
        if not as_json:
            _print(answer.body)
        return
    if answer.body.get("joined"):
        raise Failure("a code is on its way to this number already: cancel it, or wait for its end")
    _follow(answer.body["verification_id"], route, wait, url, key, as_json=as_json)


def _check_accepted(answer: Answer) -> None:
    """Raises Failure with the problem's code and detail."""
    if answer.status != 202:
        told = f"{answer.body.get('code', answer.status)}: {answer.body.get('detail', '')}"
        raise Failure(told.rstrip(": "))


def _follow(
    named: str, route: str, wait: float, url: str, key: str | None, *, as_json: bool
) -> None:
    last: Mapping[str, Any] = {}

    def ask() -> Mapping[str, Any]:
        nonlocal last
        answer = call(f"{url.rstrip('/')}/otp/status", {"verification_id": named}, key)
        if answer.status != 200:
            raise Failure(f"{answer.body.get('code', answer.status)}: its status cannot be read")
        last = answer.body
        return last

    try:
        trying.report(trying.follow(ask, route, wait, say), route, quiet=as_json)
    finally:
        if as_json:
            dump(last)


def _check_address(url: str, key: str | None) -> None:
    parts = urlsplit(url)
    try:
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise Failure(f"--url: {url} is not an address like http://127.0.0.1:8080", Code.USAGE)
    if not key:
        problem = "needs an API key: set GATEWAY_API_KEY. `gateway client add NAME` makes one"
        raise Failure(problem, Code.USAGE)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Failure("--key: what was given cannot be a key", Code.USAGE)


def _print(body: Mapping[str, Any]) -> None:
    following = body.get("next") or {}
    what = " ".join(str(following.get(part) or "") for part in ("action", "channel")).strip()
    rows = [
        ("verification", body.get("verification_id")),
        ("status", f"{body.get('status')}, delivery {body.get('delivery_status')}"),
        ("channel", body.get("channel")),
        ("next", f"{what} at {following['at']}" if following.get("at") else "nothing"),
        ("expires", body.get("expires_at")),
        ("left", f"{body.get('checks_left')} checks, {body.get('sends_left')} sends"),
    ]
    if body.get("joined"):
        rows.append(("note", "it was running before: the same code was sent once more"))
    table(("", ""), rows, console())
