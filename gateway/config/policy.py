"""What is allowed: limits, countries, the guard, and prices with what may be spent."""

import re
from collections.abc import Mapping

from gateway.config import sections, values
from gateway.domain import identity, limits, recipient, spending
from gateway.domain.countries import Countries
from gateway.domain.guard import Guard, Mode
from gateway.domain.limits import Per, Rule
from gateway.domain.policy import Policy
from gateway.domain.spending import Spending, Tariff

_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}", re.ASCII)
_PREFIX_DIGITS = 7  # of a number, when a rule per prefix does not say how many


def policy(parsed: sections.File, mistakes: dict[str, str]) -> Policy:
    """All of it, with the limit per number that stands where no other of its name is given."""
    given = parsed.guard.model_dump()
    guard = Guard(**given | {"mode": Mode(given["mode"])})
    rules = {limits.PER_NUMBER.name: limits.PER_NUMBER}
    for name, limit in parsed.limits.items():
        rules[name] = _rule(name, limit, mistakes)
    return Policy(
        node=parsed.node or "",
        rules=tuple(rules.values()),
        countries=_countries(parsed.countries, mistakes),
        guard=guard if guard.mode is not Mode.OFF else None,
        spending=_spending(parsed, mistakes),
    )


def _rule(name: str, given: sections.Limit, mistakes: dict[str, str]) -> Rule:
    key = f"limits.{name}"
    values.is_name(key, name, mistakes)
    per = Per(given.per)
    if per is not Per.PREFIX and given.digits is not None:
        mistakes[f"{key}.digits"] = 'is for per = "prefix" alone'
    digits = given.digits or _PREFIX_DIGITS
    return Rule(
        name, per, given.window, given.max, given.shadow, digits if per is Per.PREFIX else 0
    )


def _countries(given: sections.Countries, mistakes: dict[str, str]) -> Countries:
    for name in ("allow", "deny", "monitor"):
        for at, code in enumerate(getattr(given, name) or ()):
            if code not in recipient.COUNTRIES:
                mistakes[f"countries.{name}.{at}"] = "is not a country code such as FR"
    if given.allow == []:
        mistakes["countries.allow"] = "allows no country at all; leave it out to allow every one"
    both = sorted(set(given.allow or ()) & set(given.deny))
    if both:
        mistakes["countries.deny"] = f"denies what countries.allow allows: {', '.join(both)}"
    allow = frozenset(given.allow) if given.allow is not None else None
    return Countries(allow, frozenset(given.deny), frozenset(given.monitor))


def _spending(parsed: sections.File, mistakes: dict[str, str]) -> Spending | None:
    prices, spend = parsed.prices, parsed.spend
    tariffs = {}
    for route, listed in (prices.routes if prices is not None else {}).items():
        if parsed.routes and route not in parsed.routes:
            mistakes[f"prices.routes.{route}"] = "there is no such route"
        tariffs[route] = _tariff(f"prices.routes.{route}", listed, mistakes)
    if spend is None:
        return None
    if prices is None:
        mistakes["prices"] = "is missing: spend.cap needs to know what messages cost"
        return None
    for route in parsed.routes:
        if route not in tariffs:
            mistakes[f"prices.routes.{route}"] = "is missing: spend.cap needs every route's price"
    caps = {}
    for client, text in spend.clients.items():
        named = identity.parse(client)
        if named is None:
            mistakes[f"spend.clients.{client}"] = "is not a client id: see gateway client list"
        else:
            caps[named] = _amount(f"spend.clients.{client}", text, mistakes)
    return Spending(
        currency=prices.currency,
        tariffs=tariffs,
        cap=_amount("spend.cap", spend.cap, mistakes),
        caps=caps,
        reset_hour=spend.reset_hour,
        shadow=spend.shadow,
    )


def _tariff(key: str, listed: Mapping[str, str], mistakes: dict[str, str]) -> Tariff:
    """A route's prices: `default`, by country, by prefix."""
    countries, prefixes = {}, {}
    for where, text in listed.items():
        money = _amount(f"{key}.{where}", text, mistakes)
        if _PREFIX.fullmatch(where):
            prefixes[where] = money
        elif where in recipient.COUNTRIES:
            countries[where] = money
        elif where != "default":
            mistakes[f"{key}.{where}"] = "is neither default, a country (FR) nor a prefix (+3361)"
    if "default" not in listed:
        mistakes[f"{key}.default"] = "is missing: what a message to anywhere else costs"
    return Tariff(_amount(key, listed.get("default", "0"), {}), countries, prefixes)


def _amount(key: str, text: str, mistakes: dict[str, str]) -> int:
    try:
        return spending.amount(text)
    except ValueError as error:
        mistakes[key] = str(error)
        return 0
