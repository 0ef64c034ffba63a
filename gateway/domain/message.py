"""The wording of a message. What it says of validity is the life that is left, rounded down."""

from datetime import datetime


def text(*, code: str, brand: str, expires_at: datetime, now: datetime) -> str:
    """The text a person reads or hears: `123456 is your ACME code. It is valid for 4 minutes.`"""
    life = lifetime(int((expires_at - now).total_seconds()))
    return f"{code} is your {brand} code. It is valid for {life}."


def lifetime(seconds: int) -> str:
    """A span in words that is never longer than the truth."""
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    return "1 minute" if minutes == 1 else f"{minutes} minutes"
