"""Templates: placeholders, locales, what a request may ask, and one segment where possible."""

import re
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from gateway.domain import gsm, templates, wording
from gateway.domain.catalogue import Catalogue, canonical, segments, shortest
from gateway.domain.errors import InvalidInput
from gateway.domain.templates import BUILT_IN, FILLED, Given, Mistake
from gateway.domain.verification import MIN_LIFE, TTL_SECONDS

PAID = Given(amount="12.50 EUR", payee="Café Zoé")


def read(tables: dict[str, Any], locale: str = "en") -> Catalogue:
    """A catalogue of settings without mistakes."""
    mistakes: dict[str, str] = {}
    made = wording.read(tables, mistakes, locale)
    assert {} == mistakes
    return Catalogue(made, "ACME", locale)


def mistakes_of(tables: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    wording.read(tables, found)
    return found


def text_of(
    catalogue: Catalogue,
    name: str,
    locale: str | None = None,
    *,
    channel: str = "sms",
    seconds: int = 299,
    given: Given | None = None,
) -> str:
    made = catalogue.render(name, locale, channel, code="012345", seconds=seconds, given=given)
    return made.text


# Built in.


@pytest.mark.parametrize("name", ["verify", "login", "reset", "number_change", "payment"])
@pytest.mark.parametrize("locale", ["en", "fr"])
def test_a_built_in_short_message_is_one_segment(name: str, locale: str) -> None:
    catalogue = Catalogue(BUILT_IN, "Gateway")
    text = text_of(catalogue, name, locale, seconds=600, given=PAID if name == "payment" else None)

    assert 1 == segments(text)
    assert gsm.septets(text) is not None


def test_a_payment_shows_amount_and_payee() -> None:
    text = text_of(Catalogue(BUILT_IN, "ACME"), "payment", "fr", given=PAID)

    assert text.startswith("012345 confirme votre paiement de 12.50 EUR à Café Zoé avec ACME.")


@drawn(st.integers(MIN_LIFE, TTL_SECONDS[-1]), st.sampled_from(sorted(BUILT_IN)))
def test_no_built_in_text_promises_more_life_than_is_left(seconds: int, name: str) -> None:
    text = text_of(Catalogue(BUILT_IN), name, seconds=seconds, given=PAID)
    found = re.search(r"valid for (\d+) (second|minute)", text)

    assert found is not None
    assert seconds - 60 < int(found[1]) * (60 if found[2] == "minute" else 1) <= seconds


@pytest.mark.parametrize(("seconds", "shown"), [(600, "10"), (119, "1"), (59, "<1")])
def test_minutes_are_whole_ones_and_never_too_many(seconds: int, shown: str) -> None:
    catalogue = read({"login": {"en": {"sms": "{code} for {minutes} min"}}})

    assert f"012345 for {shown} min" == text_of(catalogue, "login", seconds=seconds)


@pytest.mark.parametrize(
    ("locale", "life"), [("de", "4 Minuten"), ("nl-BE", "4 minuten"), ("fr", "4 minutes")]
)
def test_the_life_is_said_in_the_language_of_the_text(locale: str, life: str) -> None:
    catalogue = read({"login": {locale: {"text": "{code} {ttl}"}}})

    assert f"012345 {life}" == text_of(catalogue, "login", locale)


# Locales.


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("fr-CA", "CA"),
        ("fr_ca", "CA"),
        ("FR-BE", "FR"),
        ("fr", "FR"),
        ("de", "default"),
        (None, "default"),
    ],
)
def test_a_locale_falls_back_to_the_wider_one_and_then_to_the_default(
    asked: str | None, found: str
) -> None:
    tables = {
        locale: {"text": f"{{code}} {text}"}
        for locale, text in (("fr-ca", "CA"), ("fr", "FR"), ("default", "default"))
    }

    assert f"012345 {found}" == text_of(read({"mine": tables}), "mine", asked)


def test_without_a_default_table_the_default_locale_speaks() -> None:
    catalogue = read({"mine": {"en": {"text": "{code} en"}, "fr": {"text": "{code} fr"}}}, "fr")

    assert "012345 fr" == text_of(catalogue, "mine", "de")


def test_a_call_is_spoken_in_the_language_of_its_text() -> None:
    """A provider picks the voice by it; approved templates go by the locale asked for."""
    catalogue = Catalogue(BUILT_IN, "ACME")
    spoken = catalogue.render("login", "de", "voice", code="1234", seconds=60)
    written = catalogue.render("login", "de", "whatsapp", code="1234", seconds=60)

    assert ("en", "de") == (spoken.locale, written.locale)


@pytest.mark.parametrize(
    ("written", "kept"), [("FR", "fr"), ("fr_ca", "fr-CA"), ("ZH-hant-tw", "zh-Hant-TW")]
)
def test_a_locale_is_compared_whatever_its_capitals(written: str, kept: str) -> None:
    assert kept == canonical(written)


# Channels.


def test_a_channel_without_a_text_of_its_own_has_the_default_one() -> None:
    catalogue = read({"mine": {"en": {"text": "{code} else", "email": "Hello,\n\n{code}"}}})

    assert ["012345 else", "Hello,\n\n012345"] == [
        text_of(catalogue, "mine", channel=channel) for channel in ("sms", "email")
    ]


def test_a_text_over_a_built_in_one_leaves_the_others() -> None:
    catalogue = read({"login": {"en": {"sms": "{code} mine"}}})
    built_in = Catalogue(BUILT_IN, "ACME")

    assert "012345 mine" == text_of(catalogue, "login")
    for locale, channel in (("en", "email"), ("fr", "sms")):
        assert text_of(built_in, "login", locale, channel=channel) == text_of(
            catalogue, "login", locale, channel=channel
        )


def test_the_subject_is_filled_too() -> None:
    made = Catalogue(BUILT_IN, "ACME").render("login", None, "email", code="1234", seconds=60)

    assert "Your ACME login code" == made.subject


# Last lines.


def test_a_webotp_line_is_the_last_of_short_messages_alone() -> None:
    catalogue = read({"login": {"webotp": "example.com"}})

    assert "@example.com #012345" == text_of(catalogue, "login").splitlines()[-1]
    assert "@" not in text_of(catalogue, "login", channel="email")
    assert 1 == segments(text_of(catalogue, "login", seconds=600))


def test_an_android_hash_ends_the_message() -> None:
    text = text_of(read({"login": {"android_hash": "FA+9qCX9VSu"}}), "login", "fr")

    assert text.endswith("\nFA+9qCX9VSu")
    assert 1 == segments(text)


def test_a_text_of_the_caller_ends_so_too() -> None:
    catalogue = read({"login": {"webotp": "example.com"}})
    own = Given(text="Hi, {code}!")

    assert "Hi, 012345!\n@example.com #012345" == text_of(catalogue, "login", given=own)
    assert "Hi, 012345!" == text_of(catalogue, "login", given=own, channel="voice")


# One segment.


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("“{code}” – l’un", '"1234" - l\'un'),  # noqa: RUF001
        ("{code}\u00a0!", "1234 !"),
        ("{code}…", "1234..."),
    ],
)
def test_plain_quotes_dashes_and_spaces_save_a_segment(text: str, sent: str) -> None:
    assert sent == shortest(templates.parsed(text).fill({"code": "1234"}))


def test_a_text_that_needs_the_large_alphabet_keeps_its_quotes() -> None:
    assert "“1234” код" == shortest("“1234” код")


def test_other_channels_keep_their_quotes() -> None:
    catalogue = read({"login": {"en": {"text": "“{code}”"}}})

    assert "“012345”" == text_of(catalogue, "login", channel="email")


# What is no text.


@pytest.mark.parametrize(
    "text",
    ["{code", "code}", "{{code}}", "{code!r}", "{code:>9}", "{0} {code}", "{} {code}", "{Code}",
     "{code} {name}", "{code}\x07", "{code}\u202e"],
)  # fmt: skip
def test_braces_hold_known_placeholders_and_nothing_else(text: str) -> None:
    with pytest.raises(Mistake):
        templates.parsed(text)


@drawn(st.text(alphabet="ab {}code", max_size=30))
def test_what_is_read_as_a_text_is_filled_without_an_error(text: str) -> None:
    try:
        made = templates.parsed(text)
    except Mistake:
        return

    assert made.fill(dict.fromkeys(FILLED, "1")) == text.replace("{code}", "1")


@pytest.mark.parametrize(
    ("table", "key", "problem"),
    [
        ({"en": {"sms": "no code"}}, "mine.en.sms", "does not contain {code}"),
        ({"en": {"sms": "{code} {nmae}"}}, "mine.en.sms", "{nmae} is not a placeholder here"),
        ({"en": {"sms": "{code} {amount}"}}, "mine.en.sms", "{amount} and {payee} go together"),
        ({"en": {"sms": 5}}, "mine.en.sms", "is a text of 1 to 2000 characters"),
        ({"en": {"fax": "{code}"}}, "mine.en.fax", "is not a channel"),
        ({"en": {"text": "{code}", "subject": "a\nb"}}, "mine.en.subject", "is one line"),
        ({"en": {"text": "{code}", "subject": "{ttl}"}}, "mine.en.subject", "{ttl} is not"),
        ({"en": {"email": "{code}"}}, "mine.en", "needs `text`"),
        ({"pl": {"text": "{code} {ttl}"}}, "mine.pl.text", "{ttl} is known in de, en"),
        ({"English": {"text": "{code}"}}, "mine.English", "is no locale"),
        ({"en": "{code}"}, "mine.en", "is no locale"),
        ({"params": "name", "en": {"text": "{code}"}}, "mine.params", "is a list"),
        ({"params": ["Name"], "en": {"text": "{code}"}}, "mine.params", "are names of small"),
        ({"params": ["code"], "en": {"text": "{code}"}}, "mine.params", "code is filled by"),
        ({"webotp": "https://x.com", "en": {"text": "{code}"}}, "mine.webotp", "is the host"),
        ({"android_hash": "short", "en": {"text": "{code}"}}, "mine.android_hash", "is the app's"),
        (
            {"webotp": "x.com", "android_hash": "FA+9qCX9VSu", "en": {"text": "{code}"}},
            "mine.webotp",
            "and android_hash both want",
        ),
        ({}, "mine", "has no text"),
        (
            {"en": {"text": "{code} {amount} {payee}", "sms": "{code}"}},
            "mine",
            "shows {amount} and {payee} in some",
        ),
    ],
)
def test_a_mistake_is_listed_by_its_key(table: dict[str, Any], key: str, problem: str) -> None:
    found = mistakes_of({"mine": table})

    assert [f"templates.{key}"] == list(found)
    assert problem in found[f"templates.{key}"]


@pytest.mark.parametrize("name", ["Login", "a:b", "x" * 33, "é"])
def test_a_template_has_a_plain_name(name: str) -> None:
    """What follows a colon in a purpose is another thing."""
    assert [f"templates.{name}"] == list(mistakes_of({name: {"en": {"text": "{code}"}}}))


# What a request may ask.

ASKING = {"mine": {"params": ["name", "shop"], "en": {"text": "{name}: {code}"}}}


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [
        ("mine", Given(), "params_missing"),
        ("mine", Given({"name": "Jo", "age": "5"}), "params_not_allowed"),
        ("login", Given({"name": "Jo"}), "params_not_allowed"),
        ("payment", Given(), "amount_required"),
        ("login", PAID, "amount_not_shown"),
        ("login", Given(text="no code"), "text_invalid"),
        ("login", Given(text="{code} {name}"), "text_invalid"),
        ("login", Given(text="{code} {amount} {payee}"), "amount_required"),
        ("payment", PAID._replace(text="{code}"), "amount_not_shown"),
    ],
)
def test_a_request_that_does_not_fit_its_template_is_refused(
    name: str, given: Given, code: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        templates.check(read(ASKING).template(name), given)

    assert code == refused.value.code


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("mine", Given({"name": "Jo"})),
        ("mine", Given({"name": "Jo", "shop": "x"})),
        ("mine", Given(text="{code}")),
        ("login", Given()),
        ("payment", PAID),
        ("login", PAID._replace(text="{code} {amount} {payee}")),
    ],
)
def test_a_request_that_fits_is_let_through_and_can_be_filled(name: str, given: Given) -> None:
    catalogue = read(ASKING)
    templates.check(catalogue.template(name), given)

    assert "012345" in text_of(catalogue, name, given=given)


def test_an_unknown_template_names_those_there_are() -> None:
    with pytest.raises(InvalidInput) as refused:
        Catalogue(BUILT_IN).template("nope")

    assert "unknown_template" == refused.value.code
    assert "login, number_change, payment, reset, verify" in refused.value.detail


@pytest.mark.parametrize(
    "text", ["", "  ", "x" * 65, "a\x07b", "see https://evil.example", "WWW.evil.example", "{code}"]
)
def test_a_value_is_short_visible_and_no_link(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        templates.value("name", text)

    assert "invalid_request" == refused.value.code


def test_a_value_is_compared_by_its_characters_not_by_their_spelling() -> None:
    assert "Café 5" == templates.value("payee", " Cafe\u0301 \u00a0 5 ")


# Settings that changed meanwhile.


def test_a_template_that_has_gone_gives_way_to_a_built_in_one() -> None:
    catalogue = Catalogue(BUILT_IN, "ACME")

    assert text_of(catalogue, "verify", "fr") == text_of(catalogue, "gone", "fr")
    assert text_of(catalogue, "payment", given=PAID) == text_of(catalogue, "gone", given=PAID)


def test_a_template_that_asks_for_more_than_it_did_gives_way_too() -> None:
    assert "012345 is your ACME code. It is valid for 4 minutes." == text_of(read(ASKING), "mine")


def test_what_a_request_brings_comes_back_as_it_was() -> None:
    given = PAID._replace(params={"name": "Zoé"}, text="{code}")

    assert given == Given.unpack(given.pack())


def test_a_template_that_shows_no_amount_any_more_gives_way_for_a_payment() -> None:
    """The person always reads what the code is good for."""
    text = text_of(read({"mine": {"en": {"text": "{code}"}}}), "mine", given=PAID)

    assert text_of(Catalogue(BUILT_IN, "ACME"), "payment", given=PAID) == text


@drawn(st.integers(MIN_LIFE, TTL_SECONDS[-1]), st.from_regex(r"[0-9]{4,10}", fullmatch=True))
def test_a_remembered_text_is_the_one_that_is_filled_anew(seconds: int, code: str) -> None:
    text = "“{code}” {ttl} {minutes} {code}"
    catalogue = read({"mine": {"en": {"text": text, "subject": "{code}?"}}})
    for channel in ("sms", "email"):
        values: dict[str, Any] = {"code": code, "seconds": seconds}
        anew = catalogue.render("mine", None, channel, given=Given(), **values)
        for _ in range(2):
            assert anew == catalogue.render("mine", None, channel, **values)
