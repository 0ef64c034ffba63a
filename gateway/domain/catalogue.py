"""The templates of this gateway, and one of them filled for a channel: what leaves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.domain import gsm, message, templates
from gateway.domain.errors import InvalidInput

_CHOICES = 1000  # of name, locale and channel that are remembered
_CODE = "\f"  # stands for the code in a text that is ready but for it; no text and no name has one


class Rendered(NamedTuple):
    """What leaves: `locale` is the one asked for, in a call the one that is spoken."""

    text: str
    subject: str
    locale: str


_rendered = tuple.__new__  # for every message: a third of the price of Rendered(…)


@dataclass(frozen=True)
class Catalogue:
    """All templates, ready to be filled. `locale`: where a template lacks the one asked for."""

    named: Mapping[str, templates.Template]
    brand: str = "Gateway"
    locale: str = "en"
    _ready: dict[tuple[str, str | None, str, int], "_Ready"] = field(default_factory=dict)
    _chosen: dict[tuple[str, str | None, str, bool], "_Choice"] = field(default_factory=dict)

    def template(self, name: str) -> templates.Template:
        """A template by name. Raises InvalidInput `unknown_template`."""
        found = self.named.get(name)
        if found is None:
            there = ", ".join(sorted(self.named))
            raise InvalidInput(
                "unknown_template", f"There is no such template. There are: {there}."
            )
        return found

    def wording(self, template: templates.Template, locale: str | None) -> templates.Wording:
        """fr-CA, then fr, then the table `default`, then the default locale, then any."""
        wanted = [*wider(locale), "default", *wider(self.locale)]
        found = [template.wordings[one] for one in wanted if one in template.wordings]
        return found[0] if found else next(iter(template.wordings.values()))

    def render(
        self,
        name: str,
        locale: str | None,
        channel: str,
        *,
        code: str,
        seconds: int,
        given: templates.Given | None = None,
    ) -> Rendered:
        """The message of a channel. `seconds`: the life that is left.

        A template that has left the settings meanwhile, or asks for more than it did, gives way to
        a built-in one: a code that was promised leaves.
        """
        if given is not None:
            return self._fill(name, locale, channel, code=code, seconds=seconds, given=given)
        said = seconds if seconds < 60 else seconds // 60 * 60  # of the life, in any text
        key = (name, locale, channel, said)
        ready = self._ready.get(key)
        if ready is None:
            if len(self._ready) >= _CHOICES:
                self._ready.clear()
            made = self._fill(name, locale, channel, code=_CODE, seconds=seconds, given=None)
            ready = self._ready[key] = _Ready(made.text.split(_CODE), made)
        pieces, (_, subject, spoken) = ready
        return _rendered(Rendered, (code.join(pieces), subject.replace(_CODE, code), spoken))

    def _fill(
        self,
        name: str,
        locale: str | None,
        channel: str,
        *,
        code: str,
        seconds: int,
        given: templates.Given | None,
    ) -> Rendered:
        paid = given is not None and given.amount is not None
        key = (name, locale, channel, paid)
        chosen = self._chosen.get(key)
        if chosen is None:
            if len(self._chosen) >= _CHOICES:
                self._chosen.clear()
            chosen = self._chosen[key] = self._choose(*key)
        text, subject, spoken, last_line = chosen
        values = {
            "code": code,
            "brand": self.brand,
            "ttl": message.lifetime(seconds, spoken),
            "minutes": str(seconds // 60) if seconds >= 60 else "<1",
        }
        if given is not None:
            if given.text is not None:
                own = templates.parted(given.text)
                text = own.ending(last_line) if last_line is not None else own
            values |= given.params
            if given.amount is not None and given.payee is not None:
                values |= {"amount": given.amount, "payee": given.payee}
        if not text.names <= values.keys() or (paid and not text.names >= templates.LINKED):
            text = _builtin(locale, linked=paid).text
        whole = text.fill(values)
        if channel == "sms":
            whole = shortest(whole)
        shown = subject.fill(values) if subject.names <= values.keys() else self.brand
        return Rendered(whole, shown, spoken if channel == "voice" else locale or self.locale)

    def _choose(self, name: str, locale: str | None, channel: str, linked: bool) -> "_Choice":
        template = self.named.get(name)
        if template is None:
            wording, last_line = _builtin(locale, linked=linked), None
        else:
            wording = self.wording(template, locale)
            last_line = template.last_line if channel == "sms" else None
        text = wording.of(channel)
        if last_line is not None:
            text = text.ending(last_line)
        spoken = self.locale if wording.locale == "default" else wording.locale
        return _Choice(text, wording.subject, spoken, last_line)


class _Ready(NamedTuple):
    """A message for which nothing is missing but the code: most are sent again and again."""

    pieces: list[str]
    made: Rendered


class _Choice(NamedTuple):
    """What a channel says in a locale, and the language it is in."""

    text: templates.Text
    subject: templates.Text
    spoken: str
    last_line: str | None


def shortest(text: str) -> str:
    """A short message in the default alphabet, where plain quotes, dashes and spaces do it: else
    one odd quote would halve what fits a segment."""
    if text.isascii():
        return text
    plain = gsm.plain(text)
    return plain if gsm.septets(plain) is not None else text


def segments(text: str) -> int:
    """How many short messages carry it."""
    return len(gsm.parts(text))


def wider(locale: str | None) -> list[str]:
    """A locale and the wider ones: fr-CA, fr."""
    if locale is None:
        return []
    tags = canonical(locale).split("-")
    return ["-".join(tags[:length]) for length in range(len(tags), 0, -1)]


def canonical(locale: str) -> str:
    """A locale as it is compared: language small, script capitalised, region large (RFC 5646
    §2.1.1); `_` is taken for `-`."""
    language, *more = locale.replace("_", "-").split("-")
    cased = [tag.upper() if len(tag) == 2 else tag.lower() for tag in more]
    return "-".join([language.lower(), *(tag.title() if len(tag) == 4 else tag for tag in cased)])


def _builtin(locale: str | None, *, linked: bool) -> templates.Wording:
    wordings = templates.BUILT_IN["payment" if linked else templates.DEFAULT].wordings
    return next((wordings[one] for one in wider(locale) if one in wordings), wordings["en"])
