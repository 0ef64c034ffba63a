"""Templates as settings write them: `[templates.NAME.LOCALE]` tables, checked text by text.

`[templates.NAME]` itself may say `params` (the parameters a request may fill in), and one of
`webotp` (the host that browsers fill the code in for: the last line becomes `@host #code`, as
WICG's origin-bound one-time codes have it) and `android_hash` (the 11 characters by which Android's
SMS Retriever knows the app, last in the message).
"""

import re
from collections.abc import Mapping
from typing import Any

from gateway.domain import message
from gateway.domain.catalogue import canonical
from gateway.domain.templates import (
    BUILT_IN,
    CHANNELS,
    FILLED,
    LINKED,
    MOST_PARAMS,
    Mistake,
    Template,
    Text,
    Wording,
    complete,
    parsed,
)

NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
LOCALE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}", re.ASCII)
LONGEST = 2000  # characters of a text
_PARAM = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9-]*[a-z0-9])+")
_HASH = re.compile(r"[A-Za-z0-9+/]{11}", re.ASCII)
_SWITCHES = ("params", "webotp", "android_hash")


def read(
    tables: Mapping[str, Any], mistakes: dict[str, str], default_locale: str = "en"
) -> dict[str, Template]:
    """The built-in templates with those of the settings over them; mistakes by key. A table over
    a built-in one replaces, in its locale, the texts that it has."""
    made = dict(BUILT_IN)
    for name, table in tables.items():
        key = f"templates.{name}"
        if not NAME.fullmatch(name):
            mistakes[key] = "is not a name: small letters, digits, - and _, at most 32"
        elif not isinstance(table, Mapping):
            mistakes[key] = f"is a table by locale: [{key}.en]"
        else:
            template = _template(key, name, table, mistakes, default_locale)
            if template is not None:
                made[name] = template
    return made


def _template(
    key: str, name: str, table: Mapping[str, Any], mistakes: dict[str, str], default_locale: str
) -> Template | None:
    before = len(mistakes)
    params = _params(key, table.get("params", []), mistakes)
    last_line = _last_line(key, table, mistakes)
    built_in = BUILT_IN.get(name)
    wordings = dict(built_in.wordings) if built_in is not None else {}
    for locale, texts in table.items():
        if locale in _SWITCHES:
            continue
        if not isinstance(texts, Mapping) or not (locale == "default" or LOCALE.fullmatch(locale)):
            there = ", ".join(_SWITCHES)
            mistakes[f"{key}.{locale}"] = f"is no locale with texts; beside those there are {there}"
            continue
        spoken = default_locale if locale == "default" else locale
        found = _texts(f"{key}.{locale}", texts, FILLED | params, spoken, mistakes)
        kept = canonical(locale)
        wording = _wording(f"{key}.{locale}", kept, found, wordings.get(kept), mistakes)
        if wording is not None:
            wordings[kept] = wording
    if not wordings and len(mistakes) == before:
        mistakes[key] = f"has no text: write [{key}.en]"
    if len(mistakes) > before:
        return None
    made = Template(name, wordings, params, last_line)
    if made.linked and not all(text.names >= LINKED for text in made.texts):
        mistakes[key] = "shows {amount} and {payee} in some of its texts; show them in all or none"
    return made


def _texts(
    key: str,
    texts: Mapping[str, Any],
    allowed: frozenset[str],
    locale: str,
    mistakes: dict[str, str],
) -> dict[str, Text]:
    found = {}
    for channel, text in texts.items():
        where = f"{key}.{channel}"
        if channel not in CHANNELS | {"text", "subject"}:
            known = ", ".join(["text", "subject", *sorted(CHANNELS)])
            mistakes[where] = f"is not a channel; there are: {known}"
        elif not isinstance(text, str) or not 0 < len(text) <= LONGEST:
            mistakes[where] = f"is a text of 1 to {LONGEST} characters"
        else:
            try:
                found[channel] = _text(text, allowed, locale, subject=channel == "subject")
            except Mistake as mistake:
                mistakes[where] = str(mistake)
    return found


def _text(text: str, allowed: frozenset[str], locale: str, *, subject: bool) -> Text:
    if subject:
        if "\n" in text:
            raise Mistake("is one line")
        return parsed(text, allowed - {"ttl", "minutes"})
    made = complete(parsed(text, allowed))
    if "ttl" in made.names and locale.partition("-")[0] not in message.LANGUAGES:
        there = ", ".join(sorted(message.LANGUAGES))
        raise Mistake(f"{{ttl}} is known in {there} only: write {{minutes}} and the word for it")
    return made


def _wording(
    key: str, locale: str, found: dict[str, Text], below: Wording | None, mistakes: dict[str, str]
) -> Wording | None:
    subject = found.pop("subject", None)
    text = found.pop("text", None) or (below.text if below is not None else found.get("sms"))
    if text is None:
        if not any(name.startswith(f"{key}.") for name in mistakes):
            mistakes[key] = "needs `text`, for channels without a text of their own, or `sms`"
        return None
    if subject is None:
        subject = below.subject if below is not None else parsed("{brand}")
    return Wording(locale, text, {**(below.channels if below else {}), **found}, subject)


def _params(key: str, params: Any, mistakes: dict[str, str]) -> frozenset[str]:
    where = f"{key}.params"
    if not isinstance(params, list) or len(params) > MOST_PARAMS:
        mistakes[where] = f"is a list of at most {MOST_PARAMS} names"
        return frozenset()
    odd = [one for one in params if not isinstance(one, str) or not _PARAM.fullmatch(one)]
    taken = [one for one in params if one in FILLED]
    if odd or taken:
        mistakes[where] = (
            f"{taken[0]} is filled by the gateway itself"
            if taken
            else "are names of small letters, digits and _, at most 32"
        )
        return frozenset()
    return frozenset(params)


def _last_line(key: str, table: Mapping[str, Any], mistakes: dict[str, str]) -> str | None:
    host, app = table.get("webotp"), table.get("android_hash")
    if host is not None and app is not None:
        mistakes[f"{key}.webotp"] = (
            "and android_hash both want the end of the message: choose one, or make two templates"
        )
    elif host is not None:
        if isinstance(host, str) and _HOST.fullmatch(host):
            return f"@{host} #{{code}}"
        mistakes[f"{key}.webotp"] = "is the host of the page that asks: example.com"
    elif app is not None:
        if isinstance(app, str) and _HASH.fullmatch(app):
            return app
        mistakes[f"{key}.android_hash"] = "is the app's hash of 11 characters, such as FA+9qCX9VSu"
    return None
