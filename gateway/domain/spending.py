"""What messages cost by the operator's own price list, and how much a client may spend in a day.

Money is an integer number of millionths of the currency's unit: prices have up to six decimals, and
sums of floats do not. The prices are estimates: a vendor's bill may differ, and what a message
really cost is only known after it was sent, when it is too late to stop.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

UNIT = 1_000_000
_AMOUNT = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def amount(text: str) -> int:
    """Millionths of what `12.50` says. Raises ValueError."""
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise ValueError('an amount is text such as "0.045", at most six decimals')
    whole, decimals = found.groups(default="")
    return int(whole) * UNIT + int(decimals.ljust(6, "0"))


def shown(money: int) -> str:
    """An amount as it is written, with at least two decimals."""
    decimals = f"{money % UNIT:06}".rstrip("0").ljust(2, "0")
    return f"{money // UNIT}.{decimals}"


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a message costs on one route: by the longest prefix that fits, else by the country, else
    `other`."""

    other: int
    countries: Mapping[str, int] = field(default_factory=dict)
    prefixes: Mapping[str, int] = field(default_factory=dict)

    def price(self, number: str | None, country: str | None) -> int:
        """The price to a number; to what is no number, or is erased, `other`."""
        if number is not None and self.prefixes:
            for length in range(min(len(number), 16), 1, -1):
                if number[:length] in self.prefixes:
                    return self.prefixes[number[:length]]
        return self.countries.get(country or "", self.other)


@dataclass(frozen=True, slots=True)
class Spending:
    """How much each client may spend in a day. `caps` are of clients that have their own; the day
    begins at `reset_hour` UTC. In shadow it is counted and logged, and stops nothing.
    """

    currency: str
    tariffs: Mapping[str, Tariff]  # by route
    cap: int
    caps: Mapping[UUID, int] = field(default_factory=dict)
    reset_hour: int = 0
    shadow: bool = False

    def cap_of(self, client_id: UUID) -> int:
        """What the client may spend in a day."""
        return self.caps.get(client_id, self.cap)

    def price(self, route: str, number: str | None, country: str | None) -> int:
        """The estimate for one message."""
        tariff = self.tariffs.get(route)
        return tariff.price(number, country) if tariff is not None else 0

    def fits(self, client_id: UUID, spent: int, price: int) -> bool:
        """Whether the client may spend that too."""
        return spent + price <= self.cap_of(client_id)

    def day(self, now: datetime) -> int:
        """The number of the day that `now` belongs to."""
        return (now - _EPOCH - timedelta(hours=self.reset_hour)).days

    def resets_at(self, day: int) -> datetime:
        """When that day is over."""
        return _EPOCH + timedelta(days=day + 1, hours=self.reset_hour)
