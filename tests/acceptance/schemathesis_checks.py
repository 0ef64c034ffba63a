"""A check of ours, for Schemathesis: loaded by it (SCHEMATHESIS_HOOKS), never by pytest.

Its own check wants every request that fits the schema to be taken, and a schema cannot say which
numbers exist, which workflows are set up, or that of two fields one is enough. So a 400 is allowed,
but only for such a reason: one that names fields (`errors`, `fields`) or calls the JSON broken
contradicts the document.
"""

from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, Response

_TYPES = {"broken_json", "unknown_field", "unsupported_media_type", "method_not_allowed"}


@schemathesis.check
def valid_requests_have_the_right_form(
    ctx: CheckContext, response: Response, case: Case[Any]
) -> bool | None:
    """Fails when what fits the schema is refused for its form."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return None
    if response.status_code in {400, 405, 415, 422}:
        said = response.json()
        assert said["code"] not in _TYPES, f"fits the schema and is refused: {said}"
        assert not {"errors", "fields"} & said.keys(), f"fits the schema and is refused: {said}"
    return None
