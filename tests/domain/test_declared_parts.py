"""Paths, templates, bodies, tests and tables of words, of which definitions are made."""

import re
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.declared import bodies, paths, rules, template
from gateway.domain.declared.bodies import Kind
from gateway.domain.declared.rules import Class, Comparison, ErrorRule, Every
from gateway.domain.delivery import State
from gateway.domain.vendor import Meaning

BODY = {
    "data": {"to": [{"status": "sent", "n": 7}, {"status": "read"}], "ok": True, "none": None},
    "price[amount]": "0.07",
    "": "",
}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("data.ok", [True]),
        ("data.ok|str", ["true"]),
        ("data.to[0].n", [7]),
        ("data.to[0].n|str", ["7"]),
        ("data.to[1].status", ["read"]),
        ("data.to[2].status", []),
        ("data.to[*].status", ["sent", "read"]),
        ("data.to[*].n", [7]),
        ("data.none", [None]),
        ("data.none.more", []),
        ("data[0]", []),
        ("data.to.status", []),
        ("'price[amount]'", ["0.07"]),
        ("$.data.ok", [True]),
        ("$", [BODY]),
        ("nothing", []),
    ],
)
def test_a_path_leads_to(written: str, expected: list[object]) -> None:
    assert expected == paths.parse(written).all(BODY, BODY)


def test_a_path_may_begin_at_the_body() -> None:
    assert ["sent"] == paths.parse("$.data.to[0].status").all({}, BODY)


@pytest.mark.parametrize(
    "written", ["", "a.", "a..b", ".a", "a[", "a[-1]", "a b", "[x]", "$a", "|str"]
)
def test_what_is_no_path_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"path|leads"):
        paths.parse(written)


def test_the_first_path_that_leads_to_something_counts() -> None:
    several = tuple(map(paths.parse, ("nothing", "data.none", "data.to[0].status")))

    assert "sent" == paths.first(several, BODY, BODY)
    assert paths.first(several[:2], BODY, BODY) is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{to}", "+33600000000"),
        ("{to|digits}", "33600000000"),
        ("{ttl_s}", 120),
        ("{ttl_s|str}", "120"),
        ("{code|int}", 123456),
        ("{text|int}", None),
        ("{locale|upper}", "FR"),
        ("{sender}", None),
        ("{sender|default:ACME}", "ACME"),
        ("{sender|upper|default:x}", "x"),
        ("{sender|default:acme|upper}", "ACME"),
        ("{empty}", None),
        ("{empty|default:}", None),
        ("a {code} b {ttl_s}", "a 123456 b 120"),
        ("from {sender}", None),
        ("{{{code}}}", "{123456}"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_a_template_is_filled(written: str, expected: object) -> None:
    variables = {
        "to": "+33600000000",
        "ttl_s": 120,
        "code": "123456",
        "text": "{code} hello",
        "locale": "fr",
        "sender": None,
        "empty": "",
    }

    assert expected == template.parse(written).fill(variables)


def test_what_is_missing_is_left_out_of_a_tree() -> None:
    tree: template.Tree = {
        "to": (template.parse("{to}"),),
        "from": template.parse("{sender}"),
        "deep": {"er": {"sender": template.parse("{sender}")}},
        "list": (template.parse("{sender}"), template.parse("{to}")),
        "flag": False,
        "zero": 0,
    }
    filled = template.fill(tree, {"to": "x", "sender": None})

    assert {"to": ["x"], "list": ["x"], "flag": False, "zero": 0} == filled


HOSTILE = "</a>&\"'\\\n{to}{{%s=1&x=2;\x00\x0b\U0001f600"


def test_a_message_cannot_break_out_of_its_place() -> None:
    json = bodies.read(Kind.JSON, bodies.write(Kind.JSON, {"a": HOSTILE}), {})
    form = bodies.read(Kind.FORM, bodies.write(Kind.FORM, {"a": HOSTILE, "b": "1"}), {})
    xml = bodies.read(Kind.XML, bodies.write(Kind.XML, {"m": {"@a": HOSTILE, "b": HOSTILE}}), {})
    clean = HOSTILE.replace("\x00", "").replace("\x0b", "")

    assert {"a": HOSTILE} == json
    assert {"a": HOSTILE, "b": "1"} == form
    assert [[clean], [clean]] == [paths.parse(one).all(xml, xml) for one in ("m.@a", "m.b")]


def test_bodies_are_written() -> None:
    tree = {"a": ["1", 2], "b": True}

    assert b"a=1&a=2&b=true" == bodies.write(Kind.FORM, tree)
    assert b'{"a":["1",2],"b":true}' == bodies.write(Kind.JSON, tree)
    assert b"" == bodies.write(Kind.QUERY, tree)
    assert b"" == bodies.write(Kind.XML, {})
    assert b'<m k="v"><a>1</a><a>2</a><b>true</b></m>' == bodies.write(
        Kind.XML, {"m": {"@k": "v", **tree}}
    )
    assert b'<m k="v">x</m>' == bodies.write(Kind.XML, {"m": {"@k": "v", "#text": "x"}})


def test_xml_is_read_as_tables() -> None:
    written = b'<?xml version="1.0"?><r><m id="1"><s>ok</s></m><m id="2">x<s/></m></r>'
    body = bodies.read(Kind.XML, written, {})

    assert ["ok"] == paths.parse("r.m.s").all(body, body)
    assert ["1", "2"] == paths.parse("r.m[*].@id").all(body, body)
    assert ["x"] == paths.parse("r.m[1].#text").all(body, body)


BOMB = (
    b"""<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><l>&b;</l>"""
)


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"no",
        b"<a>",
        b"<a></b>",
        b"\xff<a/>",
        b"<a/><b/>",
        BOMB,
        b'<!DOCTYPE a SYSTEM "file:///some/secret"><a/>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///some/secret">]><a>&x;</a>',
        b"<!DOCTYPE a><a/>",
        b"<a>&nothing;</a>",
        b"<a>" * 65 + b"</a>" * 65,
        b"<r>" + b"<a/>" * 10_000 + b"</r>",
        b'<?xml version="1.0" encoding="x-unheard-of"?><a/>',
    ],
)
def test_xml_that_is_not_worth_reading_is_not_read(written: bytes) -> None:
    assert bodies.read(Kind.XML, written, {}) is None


@settings(max_examples=100, deadline=None)
@given(kind=st.sampled_from(Kind), body=st.binary(max_size=60))
def test_no_body_makes_it_stumble(kind: Kind, body: bytes) -> None:
    bodies.read(kind, body, {})


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (Comparison((paths.parse("data.ok"),), among=frozenset({"true"})), True),
        (Comparison((paths.parse("data.to[0].n"),), among=frozenset({"7", "8"})), True),
        (Comparison((paths.parse("data.to"),), among=frozenset({"7"})), False),
        (Comparison((paths.parse("data.ok"),), other_than=frozenset({"true"})), False),
        (Comparison((paths.parse("nothing"),), other_than=frozenset({"true"})), True),
        (Comparison((paths.parse("nothing"),), there=True), False),
        (Comparison((paths.parse("nothing"),), there=False), True),
        (Comparison((paths.parse("data"),), there=True), True),
        (Comparison((paths.parse("data.to[0].status"),), pattern=re.compile("se.t")), True),
        (Comparison((paths.parse("data.to[0].status"),), pattern=re.compile("s")), False),
        (Comparison((paths.parse("nothing"),), pattern=re.compile(".*")), False),
    ],
)
def test_a_value_is_compared(test: Comparison, expected: bool) -> None:
    assert expected == test.holds(BODY, BODY)
    assert expected == Every((test, test)).holds(BODY, BODY)
    assert expected == Every((test,), enough=True).holds(BODY, BODY)


WORDS = rules.words(
    {
        "a": Meaning(State.ACK),
        "b/1": Meaning(State.READ),
        "b/*": Meaning(State.DELIVERED),
        "*/9": Meaning(State.SENT),
    }
)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("a", State.ACK),
        ("b/1", State.READ),
        ("b/2", State.DELIVERED),
        ("b", State.DELIVERED),
        ("c/9", State.SENT),
        ("b/9", State.DELIVERED),
        ("A", None),
        ("c/8", None),
        ("b/1/2", None),
        ("", None),
    ],
)
def test_a_word_has_the_meaning_of_the_first_line_that_fits(word: str, state: State | None) -> None:
    meaning = WORDS.meaning(word)

    assert state == (meaning.state if meaning else None)


LISTED = (
    ErrorRule(Class.CONFIG, "first", frozenset({400}), re.compile("E1")),
    ErrorRule(Class.TEMPORARY, "second", frozenset(), re.compile("E.")),
    ErrorRule(Class.PERMANENT_NUMBER, "third", frozenset({404})),
)


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (400, "E1", "first"),
        (500, "E1", "second"),
        (404, "x", "third"),
        (400, "x", "rejected"),
        (401, "", "unauthorized"),
        (429, "", "throttled"),
        (408, "", "temporary"),
        (503, "", "server_error"),
        (302, "", "odd_answer"),
        (100, "", "odd_answer"),
    ],
)
def test_the_first_rule_that_fits_classifies_an_error(status: int, code: str, reason: str) -> None:
    assert reason == rules.classify(LISTED, status, code).reason


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=4))
def test_a_form_comes_back_as_it_was(fields: Mapping[str, str]) -> None:
    written = bodies.write(Kind.FORM, dict(fields))

    assert (dict(fields) or {}) == (bodies.read(Kind.FORM, written, {}) or {})
