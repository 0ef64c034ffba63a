"""What decides: tests of a value, the classes of errors, and tables of words.

Values are compared as a form would write them, so that 0 and "0", true and "true" are the same.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

from gateway.domain.declared import paths
from gateway.domain.declared.paths import Paths
from gateway.domain.vendor import Meaning

ANY = "*"  # a part of a word, or a whole word, that may be anything


@dataclass(frozen=True, slots=True)
class Comparison:
    """One value looked at: there or not, among others or not, of a pattern or not."""

    path: Paths
    there: bool | None = None
    among: frozenset[str] | None = None
    other_than: frozenset[str] | None = None
    pattern: re.Pattern[str] | None = None

    def holds(self, item: object, body: object) -> bool:
        value = paths.text(paths.first(self.path, item, body))
        given = value if isinstance(value, str) else None
        if self.there is not None and self.there != (value is not None):
            return False
        if self.among is not None and given not in self.among:
            return False
        if self.other_than is not None and given in self.other_than:
            return False
        return self.pattern is None or (given is not None and bool(self.pattern.fullmatch(given)))


@dataclass(frozen=True, slots=True)
class Every:
    """All of them hold, or with `enough` one of them."""

    tests: tuple["Predicate", ...]
    enough: bool = False

    def holds(self, item: object, body: object) -> bool:
        found = (test.holds(item, body) for test in self.tests)
        return any(found) if self.enough else all(found)


Predicate = Comparison | Every


class Class(StrEnum):
    """What an error answer means for the plan."""

    TEMPORARY = "temporary"
    THROTTLED = "throttled"
    PERMANENT_NUMBER = "permanent_number"
    PERMANENT_ATTEMPT = "permanent_attempt"
    CONFIG = "config"
    AUTH = "auth"
    UNCERTAIN = "uncertain"  # it may have been sent


REASONS: Mapping[Class, str] = {
    Class.TEMPORARY: "temporary",
    Class.THROTTLED: "throttled",
    Class.PERMANENT_NUMBER: "bad_destination",
    Class.PERMANENT_ATTEMPT: "rejected",
    Class.CONFIG: "bad_request",
    Class.AUTH: "unauthorized",
    Class.UNCERTAIN: "server_error",
}


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """Answers of these HTTP statuses (none: any) whose code fits are of this class."""

    meaning: Class
    reason: str
    status: frozenset[int] = frozenset()
    code: re.Pattern[str] | None = None
    retry_after: Paths = ()  # seconds in the body
    retry_header: str = "retry-after"

    def fits(self, status: int, code: str) -> bool:
        if self.status and status not in self.status:
            return False
        return self.code is None or self.code.fullmatch(code) is not None


# The last word on what no rule of a definition names. 408 and 425: the server did not act on it.
# Another server error is no proof of that.
UNLISTED: Sequence[ErrorRule] = (
    ErrorRule(Class.AUTH, "unauthorized", frozenset({401, 403})),
    ErrorRule(Class.THROTTLED, "throttled", frozenset({429})),
    ErrorRule(Class.TEMPORARY, "temporary", frozenset({408, 425})),
    ErrorRule(Class.PERMANENT_ATTEMPT, "rejected", frozenset(range(400, 500))),
    ErrorRule(Class.UNCERTAIN, "server_error", frozenset(range(500, 600))),
    ErrorRule(Class.UNCERTAIN, "odd_answer"),
)


def classify(rules: Sequence[ErrorRule], status: int, code: str) -> ErrorRule:
    """The first rule that fits, of the definition's and then of ours."""
    return next(rule for rule in (*rules, *UNLISTED) if rule.fits(status, code))


@dataclass(frozen=True, slots=True)
class Words:
    """A vendor's words and their meanings. A key of several fields is their texts joined by `/`;
    a part that is `*` fits anything, and the first line that fits counts."""

    exact: Mapping[str, Meaning]
    patterns: tuple[tuple[tuple[str, ...], Meaning], ...] = ()

    def meaning(self, word: str) -> Meaning | None:
        """None for a word that is not in the table."""
        if word in self.exact:
            return self.exact[word]
        parts = word.split("/")
        for pattern, meaning in self.patterns:
            if len(parts) <= len(pattern) and all(
                one in (ANY, part) for one, part in zip_longest(pattern, parts, fillvalue="")
            ):
                return meaning
        return None


def words(table: Mapping[str, Meaning]) -> Words:
    """The table, its lines with a `*` in their order."""
    wild = [(tuple(word.split("/")), meaning) for word, meaning in table.items() if ANY in word]
    return Words({word: one for word, one in table.items() if ANY not in word}, tuple(wild))
