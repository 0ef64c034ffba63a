"""Phone numbers: how they may be written, how they are kept, shown and blotted out."""

import re
from dataclasses import dataclass

import phonenumbers
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from gateway.domain import recipient
from gateway.domain.errors import GatewayError, InvalidInput
from gateway.domain.recipient import Phone, mask, parse, redact, same

FRENCH = Phone("+33612345678", "FR")


def refusal(text: str, region: str | None = None) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        parse(text, region)
    return refused.value


def answer(text: str, region: str | None = None) -> Phone | str:
    """The number, or the code of the refusal."""
    try:
        return parse(text, region)
    except GatewayError as error:
        return error.code


@dataclass(frozen=True)
class Example:
    """A number that its country's numbering plan gives as an example."""

    e164: str
    international: str
    national: str
    region: str


def _example(region: str, kind: int) -> Example | None:
    number = phonenumbers.example_number_for_type(region, kind)
    if number is None:
        return None
    return Example(
        phonenumbers.format_number(number, PhoneNumberFormat.E164),
        phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL),
        phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL),
        region,
    )


MOBILES = [
    example
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
    if (example := _example(region, PhoneNumberType.MOBILE)) is not None
]
EVERY_KIND = [
    example
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
    for kind in PhoneNumberType.values()
    if (example := _example(region, kind)) is not None
]


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """Valid mobile numbers of any country, in E.164: an example with its last digits changed."""
    example = draw(st.sampled_from(MOBILES)).e164
    number = example[:-4] + draw(st.from_regex("[0-9]{4}", fullmatch=True))
    assume(phonenumbers.is_valid_number(phonenumbers.parse(number)))
    return number


# Spellings.


@pytest.mark.parametrize(
    "text",
    [
        "+33612345678",
        "+33 6 12 34 56 78",
        "+33-6-12-34-56-78",
        "+33.6.12.34.56.78",
        "+33 (0)6 12 34 56 78",
        "+330612345678",
        "0033612345678",
        "00 33 6 12 34 56 78",
        "33612345678",
        "33 6 12 34 56 78",
        "  +33612345678\n",
        "\N{FULLWIDTH PLUS SIGN}33612345678",
        "+33\N{NO-BREAK SPACE}6\N{NO-BREAK SPACE}12\N{NO-BREAK SPACE}34\N{NO-BREAK SPACE}5678",
        "tel:+33612345678",
    ],
)
def test_a_number_may_be_spelled_in_many_ways(text: str) -> None:
    assert FRENCH == parse(text)


@pytest.mark.parametrize("text", ["0612345678", "06 12 34 56 78", "+33612345678", "0033612345678"])
def test_with_a_default_region_the_national_form_is_read(text: str) -> None:
    assert FRENCH == parse(text, "FR")


@pytest.mark.parametrize("text", ["0612345678", "06 12 34 56 78"])
def test_without_a_default_region_the_national_form_is_no_number(text: str) -> None:
    assert "recipient_invalid" == refusal(text).code


def test_the_default_region_does_not_touch_a_number_of_another_country() -> None:
    assert Phone("+4915123456789", "DE") == parse("+49 1512 3456789", "FR")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+39 06 1234 5678", Phone("+390612345678", "IT")),
        ("+390612345678", Phone("+390612345678", "IT")),
        ("+39 312 345 6789", Phone("+393123456789", "IT")),
        ("+2290195123456", Phone("+2290195123456", "BJ")),
        ("+229 01 95 12 34 56", Phone("+2290195123456", "BJ")),
    ],
)
def test_a_leading_zero_that_belongs_to_the_number_is_kept(text: str, expected: Phone) -> None:
    """Italy's landlines, and all of Benin since 2024."""
    assert expected == parse(text)


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("+447911123456", "GG"),
        ("+447400123456", "GB"),
        ("+12015550123", "US"),
        ("+15062345678", "CA"),
        ("+18762101234", "JM"),
        ("+79123456789", "RU"),
        ("+77710009998", "KZ"),
    ],
)
def test_a_country_code_shared_by_several_gives_the_one_of_the_number(
    text: str, region: str
) -> None:
    assert Phone(text, region) == parse(text)


def test_every_example_of_every_numbering_plan_is_read_alike_however_it_is_spaced() -> None:
    assert [] == [
        example for example in EVERY_KIND if answer(example.international) != answer(example.e164)
    ]


def test_the_mobile_numbers_of_every_country_are_read_as_they_are() -> None:
    assert [] == [example for example in MOBILES if parse(example.e164).e164 != example.e164]


@given(numbers(), st.lists(st.sampled_from(["", " ", "-"]), min_size=20, max_size=20))
def test_blanks_and_dashes_never_change_what_a_number_is(number: str, gaps: list[str]) -> None:
    spaced = "".join(digit + gap for digit, gap in zip(number, gaps, strict=False))

    assert answer(number) == answer(spaced.rstrip("-"))


@pytest.mark.parametrize("text", ["+789123456789", "+54111523456789", "+4407911123456"])
def test_a_trunk_prefix_after_the_country_code_is_read_alike_however_it_is_spaced(
    text: str,
) -> None:
    assert answer(f"{text[:3]} {text[3:]}") == answer(text)


@given(numbers())
def test_what_was_read_reads_as_itself(number: str) -> None:
    once = parse(number)

    assert once == parse(once.e164)


# Refusals.


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "00",
        "+0",
        "hello",
        "+33",
        "+3361234567",
        "+336123456789",
        "+999123456789",
        "+33012345678901234567",
        "+33612345678" * 30,
        "12",
        "112",
        "a@example.com",
        "\x00",
        "+33612345678 ext 5",  # the parser would drop what follows, or what comes before
        "+33612345678#12",
        "+33612345678,,123",
        "+33612345678\x00",
        "call +33612345678",
        "+1-800-FLOWERS",
    ],
)
def test_what_is_no_number_is_refused(text: str) -> None:
    assert "recipient_invalid" == refusal(text).code


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("+33891123456", "premium-rate"),
        ("+19002345678", "premium-rate"),
        ("+33810123456", "shared-cost"),
        ("+445512345678", "company (UAN)"),
        ("+447640123456", "pager"),
        ("+870773111632", "satellite or international-network"),
        ("+80012345678", "satellite or international-network"),
        ("+979123456789", "premium-rate"),
    ],
)
def test_numbers_nobody_gets_a_code_on_are_refused_by_name(text: str, kind: str) -> None:
    error = refusal(text)

    assert ("recipient_refused", kind) == (error.code, error.facts.get("kind"))


@pytest.mark.parametrize("text", ["+33891123456", "+336123456789", "+999123456789", "12345678"])
def test_a_refusal_does_not_repeat_the_number(text: str) -> None:
    error = refusal(text)

    assert re.search("[0-9]{4}", f"{error} {error.detail}".replace("+33612345678", "")) is None


# Masks.


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("+33612345678", "+33 6•• ••• •78"),
        ("+12015550123", "+1 2•• ••• ••2 3"),
        ("+447911123456", "+44 7•• ••• ••5 6"),
        ("+35312345678", "+353 1•• ••• 78"),
        ("+6834002", "+683 4•0 2"),
    ],
)
def test_a_number_is_shown_masked(number: str, expected: str) -> None:
    assert expected == mask(number)


@given(numbers())
def test_a_mask_shows_country_code_first_and_last_two_digits_and_no_more(number: str) -> None:
    length = recipient.country_code_length(number)
    national = number[1 + length :]
    shown = mask(number).replace(" ", "").removeprefix("+")
    hidden = "•" * (len(national) - 3)

    assert number[1 : 1 + length] + national[0] + hidden + national[-2:] == shown


@pytest.mark.parametrize(
    ("number", "expected"), [("+1", 1), ("+7", 1), ("+33", 2), ("+353", 3), ("+210", 1)]
)
def test_a_country_code_has_one_to_three_digits(number: str, expected: int) -> None:
    assert expected == recipient.country_code_length(number + "2345678")


# Spellings of others.


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("+33612345678", "33612345678", True),
        ("+33612345678", "0033612345678", True),
        ("+33612345678", "+33 6 12 34 56 78", True),
        ("+33612345678", "tel:+33-6-12-34-56-78", True),
        ("+33612345678", "+33612345679", False),
        ("+33612345678", "612345678", False),
        ("+33612345678", "", False),
        ("+33612345678", "+336123456780", False),
    ],
)
def test_two_spellings_name_one_number_when_their_digits_agree(
    one: str, other: str, expected: bool
) -> None:
    assert expected == same(one, other)


@given(numbers(), numbers())
def test_different_numbers_are_never_the_same(one: str, other: str) -> None:
    assert (one == other) == same(one, other)


# Redaction.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("invalid number +33612345678", "invalid number +•••"),
        ("to 06 12 34 56 78 refused", "to ••• refused"),
        ("code 0123 is wrong", "code ••• is wrong"),
        ("(201) 555-0123", "(•••"),
        ("06  12  34  56  78", "•••"),
        ("06/12/34/56/78", "•••"),
        ("06\N{NO-BREAK SPACE}12\N{NO-BREAK SPACE}34", "•••"),
        ("error 503", "error 503"),
        ("HTTP 429, retry in 30 s", "HTTP 429, retry in 30 s"),
        ("1.2.3.4", "•••"),
        ("12", "12"),
        ("", ""),
    ],
)
def test_a_vendors_text_loses_whatever_could_be_a_number(text: str, expected: str) -> None:
    assert expected == redact(text)


SPACED = re.compile(r"[0-9](?:[ ()./-]{0,2}[0-9]){3,}")


@given(st.text(alphabet="0123456789 ()./-+x\n", max_size=40))
def test_no_run_of_four_digits_survives_however_it_is_spaced(text: str) -> None:
    assert SPACED.search(redact(text)) is None


@given(st.text(max_size=12), numbers(), st.sampled_from(["", " ", "-", "."]), st.text(max_size=12))
def test_no_number_survives_in_any_text(before: str, number: str, gap: str, after: str) -> None:
    spaced = gap.join(number[1:])
    shown = redact(f"{before}+{spaced}{after}")

    assert spaced not in shown


@given(st.text(alphabet="0123456789 ().-+ab", max_size=40))
def test_what_was_redacted_stays_as_it_is(text: str) -> None:
    once = redact(text)

    assert once == redact(once)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("550 <jo.smith@example.com>: no such user", "550 <•••>: no such user"),
        ("mailbox of jo@example.com, full", "mailbox of •••, full"),
        ("at @ noon", "at @ noon"),
    ],
)
def test_a_vendor_s_text_keeps_no_e_mail_address(text: str, kept: str) -> None:
    assert kept == recipient.redact(text)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("failed 30003", "failed 30003"),
        ("ESME_RTHROTTLED (0x58)", "ESME_RTHROTTLED (0x58)"),
        ("131026: 5.1.1", "131026: 5.1.1"),
        ("your code is 482913", "your code is •••"),
        ("4 8 2 9 1 3", "•••"),
        ("4,8,2,9,1,3", "•••"),
        ("no 4829136", "no •••"),
        ("to +33 6 12-34.56 78", "to +•••"),
        ("06 12 34 56 78 unknown", "••• unknown"),
        ("<anna@example.com> unknown", "<•••> unknown"),
    ],
)
def test_a_vendors_word_is_shown_without_code_and_number(word: str, shown: str) -> None:
    assert shown == recipient.redact_word(word, lambda: "482913")


def test_nobody_derives_a_code_for_a_word_without_digits() -> None:
    def own() -> str:
        raise AssertionError("derived")

    assert "delivered 250" == recipient.redact_word("delivered 250", own)


def test_without_our_code_nothing_like_one_is_shown() -> None:
    assert "failed •••" == recipient.redact_word("failed 30003", str)
