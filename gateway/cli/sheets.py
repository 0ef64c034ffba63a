"""docs/providers.md: what each provider can do and what to set up with it, from the providers
themselves. `gateway routes sheets` prints it; a test keeps the file as it is printed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from gateway.ports import Provider

_NO = "-"
PUBLIC_URL = "https://otp.example.com"

# Whose cases show it, below tests/providers; the runner's tests have the same names for all.
_CASES = {
    "aws": "test_aws.py::TestAws",
    "generic": "test_generic.py::TestTelnyx",
    "mailgun": "test_mailgun.py::TestMailgun",
    "messenger": "test_messenger.py::TestMessenger",
    "octopush": "test_octopush.py::TestSms",
    "sendgrid": "test_sendgrid.py::TestSendgrid",
    "smpp": "test_smpp.py::TestSmpp",
    "smtp": "test_smtp.py::TestSmtp",
    "telegram": "test_telegram.py::TestTelegram",
    "twilio": "test_twilio.py::TestTwilio",
    "vonage": "test_vonage.py::TestMessages",
    "whatsapp": "test_whatsapp.py::TestWhatsapp",
}
_RUNNER = {
    "send": "test_a_message_becomes_this_request",
    "receipts": "test_a_callback_says_this",
    "signature": "test_a_forged_callback_is_refused",
}
_READ = "test_what_is_read_is_among_the_cases"
_COST = "test_what_it_costs_is_among_the_cases"
_POLL = "test_a_poll_says_this"

_HEAD = """\
# Providers

Made by `gateway routes sheets > docs/providers.md`; a test keeps it so. The settings of each are in
[gateway/providers/README.md](../gateway/providers/README.md), the generic provider's language in
[generic.md](generic.md).

`receipts`: what a route can confirm; a step that waits for more waits for the typed code. `poll`:
asked once when a step's patience ends. `revoke`: a message under way is taken back when nobody
waits for it. `one message`: the same attempt submitted twice is one. `validity`: the vendor drops a
message whose step has passed. Telnyx stands for the generic provider: other definitions have other
words.
"""


_MORE = """
`read` and `cost` hold the cases of `receipts` and of answers to what the table above says. From end
to end, over sockets, every route that takes a number: `tests/acceptance/test_sandbox_routes.py`.
"""


def sheets() -> None:
    """Print docs/providers.md."""
    typer.echo(markdown(), nl=False)


def markdown() -> str:
    """The whole page."""
    from gateway import config
    from gateway.app import sandboxed

    loaded = sandboxed.with_sandbox(config.load({}), sandboxed.no_keyring(), sandboxed.Ports(8081))
    providers = sorted(loaded.providers, key=lambda one: (kind_of(one), one.name))
    kinds = list(dict.fromkeys(kind_of(provider) for provider in providers))
    parts = [
        _HEAD,
        "\n## What each can do\n\n",
        _able(providers),
        "\n## Shown by\n\n",
        _shown_by(kinds),
    ]
    for kind in kinds:
        mine = [provider for provider in providers if kind_of(provider) == kind]
        parts.append(_setup(kind, mine[0]))
    return "".join(parts)


def kind_of(provider: "Provider[Any, Any]") -> str:
    """What its routes have as `provider`."""
    from gateway.providers import PROVIDERS

    made_by: Any = type(provider)
    return next(name for name, chosen in PROVIDERS.items() if chosen is made_by)


def _able(providers: "Sequence[Provider[Any, Any]]") -> str:
    columns = (
        "provider", "channel", "send", "receipts", "finds its attempt by", "signature", "read",
        "poll", "revoke", "one message", "validity", "cost",
    )  # fmt: skip
    rows = list(dict.fromkeys(tuple(_row(provider).values()) for provider in providers))
    return _table(columns, rows)


def _row(provider: "Provider[Any, Any]") -> Mapping[str, str]:
    from gateway.domain.delivery import State
    from gateway.services.runtime import polls, revokes

    found = {"echo": "our id, echoed", "token": "token in the URL", "reference": "the vendor's id"}
    states = [one.value for one in sorted(provider.confirms, key=lambda one: one.rank)]
    signed = "signed" if provider.signed else "by key; the number or tag is compared"
    return {
        "provider": f"`{kind_of(provider)}`",
        "channel": provider.channel,
        "send": provider.wire.value,
        "receipts": " ".join(states) or "none",
        "finds": found[provider.correlates.value] if states else _NO,
        "signature": signed if states else _NO,
        "read": _yes(State.READ in provider.confirms),
        "poll": _yes(polls(provider)),
        "revoke": _yes(revokes(provider)),
        "one": _yes(provider.idempotent),
        "validity": _yes(provider.validity),
        "cost": provider.sheet.cost or _NO,
    }


def _yes(able: bool) -> str:
    return "yes" if able else _NO


def tests() -> Iterator[tuple[str, str, str]]:
    """(provider, what is shown, test) of every provider; tests as named below tests/providers."""
    from gateway import config
    from gateway.app import sandboxed
    from gateway.domain.delivery import State
    from gateway.services.runtime import polls

    loaded = sandboxed.with_sandbox(config.load({}), sandboxed.no_keyring(), sandboxed.Ports(8081))
    asked = {kind_of(one) for one in loaded.providers if polls(one)}
    read = {kind_of(one) for one in loaded.providers if State.READ in one.confirms}
    priced = {kind_of(one) for one in loaded.providers if one.sheet.cost}
    for kind, cases in _CASES.items():
        for what, name in _RUNNER.items():
            yield kind, what, f"{cases}::{name}"
        if kind in read:
            yield kind, "read", f"{cases}::{_READ}"
        if kind in priced:
            yield kind, "cost", f"{cases}::{_COST}"
        if kind in asked:
            yield kind, "poll", f"{cases.partition('::')[0]}::{_POLL}"


def _shown_by(kinds: Sequence[str]) -> str:
    named = {(kind, what): f"`{test}`" for kind, what, test in tests()}
    columns = ("provider", *_RUNNER, "read", "poll", "cost")
    rows = [
        (f"`{kind}`", *(named.get((kind, what), _NO) for what in columns[1:])) for kind in kinds
    ]
    return f"{_table(columns, rows)}{_MORE}"


def _setup(kind: str, provider: "Provider[Any, Any]") -> str:
    from gateway.cli.routing import callback_url

    sheet = provider.sheet
    url = callback_url(provider, PUBLIC_URL)
    lines = [f"\n## {kind}: {sheet.vendor}\n", "\n"]
    lines += [f"* {step}\n" for step in sheet.setup]
    lines.append("\n" if sheet.setup else "")
    where = f"`{url}`" if url is not None else "each message brings its own, or none is needed"
    lines += [f"Callback URL: {where}.\n", f"Proof: {sheet.proof}.\n"]
    return "".join(lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
