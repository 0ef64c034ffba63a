"""The form of gateway.toml: what it says becomes `sections.File`, and every key that cannot be one,
or has a value it cannot have, is listed.
"""

import copy
import difflib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.config import sections

_TABLE = "must be a table"
_TOLD = {"missing": "is missing", "model_type": _TABLE, "dict_type": _TABLE}  # pydantic's types


def parse(raw: dict[str, Any], mistakes: dict[str, str]) -> sections.File:
    """The form of the file. What is wrong is listed and left out, so that the rest is looked at."""
    left = copy.deepcopy(raw)
    while True:
        try:
            return sections.File.model_validate(left)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
        first = not mistakes
        for problem in found:
            if first:
                key = ".".join(str(part) for part in problem["loc"])
                odd = problem["type"] == "extra_forbidden"
                told = _TOLD.get(problem["type"], problem["msg"])
                mistakes[key] = _unknown(problem["loc"]) if odd else told
        _leave_out(left, found[0]["loc"], whole=found[0]["type"] == "missing")


def _unknown(loc: tuple[int | str, ...]) -> str:
    """That a key is no setting, and which was meant, or which there are."""
    model: type[BaseModel] = sections.File
    for part in loc[:-1]:
        if part in model.model_fields:
            inner = _model_in(model.model_fields[str(part)].annotation)
            if inner is None:
                return "is not a setting; check its spelling"
            model = inner
    known = sorted(model.model_fields)
    close = difflib.get_close_matches(str(loc[-1]), known, 1)
    more = f" (is {close[0]} meant?)" if close else f"; there are: {', '.join(known)}"
    return f"is not a setting; check its spelling{more}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is, or holds: `dict[str, sections.Workflow]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(one) for one in typing.get_args(annotation))
    return next((one for one in found if one is not None), None)


def _leave_out(left: dict[str, Any], loc: tuple[int | str, ...], *, whole: bool) -> None:
    """Remove what a mistake is about; for something missing, what it is missing from."""
    path = loc[:-1] if whole and len(loc) > 1 else loc
    holder: Any = left
    for part in path[:-1]:
        holder = holder[part]
    del holder[path[-1]]
