"""Which countries codes are sent to: a list of those allowed, of those denied, of those watched."""

from dataclasses import dataclass, field

from gateway.domain.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Countries:
    """Lists of ISO 3166 codes. With `allow`, every other country is refused; `deny` wins over it.
    Sends to countries of `monitor` are logged.
    """

    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    monitor: frozenset[str] = frozenset()
    named: bool = field(init=False, repr=False)  # whether any list says anything

    def __post_init__(self) -> None:
        named = self.allow is not None or bool(self.deny or self.monitor)
        object.__setattr__(self, "named", named)

    def admit(self, country: str) -> bool:
        """Whether a send to that country is to be logged.

        Raises Forbidden `country_refused`.
        """
        if country in self.deny or (self.allow is not None and country not in self.allow):
            raise Forbidden(
                "country_refused",
                f"Codes are not sent to {country} numbers here: the operator's list of countries "
                "says so.",
                facts={"rule": "countries", "country": country},
            )
        return country in self.monitor
