"""What can go wrong for a caller, as a few exceptions with stable codes.

    GatewayError
    ├── InvalidInput     the request cannot be understood or allowed as it is
    ├── NotFound         nothing of that name among the caller's own
    ├── Conflict         the thing is in a state that does not allow this
    ├── Ended            it was, and is over: expired, canceled, failed
    ├── Unprocessable    it contradicts what was asked before under the same name
    ├── Limited          too often; `retry_after` says when, where waiting helps
    ├── Unauthenticated  no key, or none that we know
    ├── Forbidden        the key is good and does not allow this
    └── Unavailable      nothing was stored; the same request may succeed in a moment

Callers act on `code`, never on the text. `detail` says what happened and what to do about it; it
never holds a code, a key or a full number. `web/errors.py` gives each code its HTTP status.
"""

from collections.abc import Mapping
from typing import ClassVar


class GatewayError(Exception):
    """A refusal with a stable `code`, a sentence, and facts for the answer's further members."""

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.facts: Mapping[str, object] = facts or {}


class InvalidInput(GatewayError):
    """400: mend the request."""


class Unauthenticated(GatewayError):
    """401."""


class Forbidden(GatewayError):
    """403."""


class NotFound(GatewayError):
    """404."""


class Conflict(GatewayError):
    """409."""


class Ended(GatewayError):
    """410."""


class Unprocessable(GatewayError):
    """422."""


class Limited(GatewayError):
    """429."""

    retryable = True


class Unavailable(GatewayError):
    """503: nothing was stored."""

    retryable = True
