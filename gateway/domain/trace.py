"""The caller's trace: the `traceparent` header of W3C Trace Context, and nothing more of it.

https://www.w3.org/TR/trace-context/#traceparent-header
"""

import re

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


def parse(header: str | None) -> str | None:
    """A traceparent in its version 00, None for one that is missing, malformed or not sampled: a
    trace that nobody records is none.
    """
    form = _FORM.fullmatch(header.strip()) if header else None
    if form is None:
        return None
    version, trace_id, parent_id, flags, more = form.groups()
    if version == "ff" or (version == "00" and more):  # later versions may say more
        return None
    if not int(trace_id, 16) or not int(parent_id, 16) or not int(flags, 16) & _SAMPLED:
        return None
    return f"00-{trace_id}-{parent_id}-01"
