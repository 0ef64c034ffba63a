"""`gateway templates`: which texts there are, and what a person will read."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.output import Code, Config, Failure, Json, console, dump, settings, table

if TYPE_CHECKING:
    from gateway.config import Settings

# What stands in a preview for what a request brings: as long as it usually gets.
CODE = "123456"
AMOUNT = "1234.56 EUR"
PAYEE = "Example Trading Ltd."
PARAM = "Example"
SECONDS = 600  # the longest life there is

app = typer.Typer(
    help="The texts of messages: which there are, and what a person will read.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def listed(context: typer.Context, *, config: Config = None, as_json: Json = False) -> None:
    """List the templates, or show one of them."""
    if context.invoked_subcommand is not None:
        return
    loaded = settings(config)
    rows = [_row(loaded, name) for name in sorted(loaded.templates)]
    if as_json:
        dump(rows)
        return
    columns = ("name", "locales", "params", "shows amount", "ends with")
    table(columns, [[_cell(value) for value in row.values()] for row in rows])


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="login, payment…")],
    *,
    locale: Annotated[
        str | None, typer.Option(metavar="LOCALE", help="As a request would: fr, fr-CA. All.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option(metavar="CHANNEL", help="sms, voice, email… Those that differ.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what a person will read, with sample values.

    Of a short message also its length in septets (none: it needs the large alphabet) and how many
    segments carry it.
    """
    loaded = settings(config)
    if name not in loaded.templates:
        there = ", ".join(sorted(loaded.templates))
        raise Failure(f"there is no template {name!r}; there are: {there}", Code.NOT_FOUND)
    shown = list(previews(loaded, name, locale, channel))
    if as_json:
        dump(shown)
        return
    out = console()
    for at, one in enumerate(shown):
        if at:
            out.print()
        for title, text in _told(one):
            out.print(f"{title:<9} {text}".rstrip(), soft_wrap=True)


def previews(
    loaded: "Settings", name: str, locale: str | None = None, channel: str | None = None
) -> Iterator[dict[str, Any]]:
    """A template filled with sample values, in a locale or all of its own, for a channel or those
    that have a text of their own and `sms`. Raises Failure for an unknown channel."""
    from gateway.domain import gsm
    from gateway.domain.catalogue import Catalogue, segments
    from gateway.domain.templates import CHANNELS, Given

    if channel is not None and channel not in CHANNELS:
        there = ", ".join(sorted(CHANNELS))
        raise Failure(f"--channel: there is no {channel!r}; there are: {there}", Code.USAGE)
    catalogue = Catalogue(loaded.templates, loaded.brand, loaded.default_locale)
    template = catalogue.template(name)
    linked = {"amount": AMOUNT, "payee": PAYEE} if template.linked else {}
    given = Given(dict.fromkeys(template.params, PARAM), **linked)
    for asked in [locale] if locale is not None else template.wordings:
        wording = catalogue.wording(template, asked)
        differing = ["sms", *sorted(wording.channels.keys() - {"sms"})]
        for used in [channel] if channel is not None else differing:
            made = catalogue.render(name, asked, used, code=CODE, seconds=SECONDS, given=given)
            short = used == "sms"
            yield {
                "template": name,
                "locale": wording.locale,
                "channel": used,
                "subject": made.subject if used == "email" else None,
                "text": made.text,
                "retriever": short and template.retriever,
                "septets": gsm.septets(made.text) if short else None,
                "segments": segments(made.text) if short else None,
            }


def _row(loaded: "Settings", name: str) -> dict[str, Any]:
    template = loaded.templates[name]
    return {
        "name": name,
        "locales": sorted(template.wordings),
        "params": sorted(template.params),
        "linked": template.linked,
        "last_line": template.last_line,
    }


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (" ".join(value) if isinstance(value, list) else value) or "-"


def _told(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "template", f"{one['template']}, {one['locale']}, {one['channel']}"
    if one["subject"] is not None:
        yield "subject", one["subject"]
    first, *more = one["text"].split("\n")
    yield "text", first
    yield from (("", line) for line in more)
    if one["segments"] is not None:
        septets = one["septets"]
        length = f"{septets} septets" if septets is not None else "large alphabet (UCS2)"
        yield "length", f"{length}, {one['segments']} segment{'s' * (one['segments'] != 1)}"
