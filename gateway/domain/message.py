"""What a message says of time: the life that is left, in words, rounded down."""

# Second, seconds, minute, minutes.
_WORDS = {
    "de": ("Sekunde", "Sekunden", "Minute", "Minuten"),
    "en": ("second", "seconds", "minute", "minutes"),
    "es": ("segundo", "segundos", "minuto", "minutos"),
    "fr": ("seconde", "secondes", "minute", "minutes"),
    "it": ("secondo", "secondi", "minuto", "minuti"),
    "nl": ("seconde", "seconden", "minuut", "minuten"),
    "pt": ("segundo", "segundos", "minuto", "minutos"),
}
LANGUAGES = frozenset(_WORDS)


def lifetime(seconds: int, locale: str = "en") -> str:
    """A span in words that is never longer than the truth; in English where the language of the
    locale is not one of LANGUAGES."""
    language = locale.replace("_", "-").partition("-")[0].lower()
    second, several, minute, minutes = _WORDS.get(language, _WORDS["en"])
    if seconds < 60:
        return f"{seconds} {second if seconds == 1 else several}"
    count = seconds // 60
    return f"{count} {minute if count == 1 else minutes}"
