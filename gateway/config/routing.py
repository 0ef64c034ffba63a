"""Routes, with what each provider wants to be told, and the workflows over them."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from gateway.config import sections, values
from gateway.domain.declared.definition import Definition, DefinitionError
from gateway.domain.workflow import OnFailed, OnUnknown, Step, Until
from gateway.ports import Provider, Secret
from gateway.providers import PROVIDERS, definitions


def routes(
    given: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str], mistakes: dict[str, str]
) -> list[tuple[Provider[Any, Any], Any]]:
    """Each route's provider, and the settings it was made with."""
    made = []
    for name, table in given.items():
        key = f"routes.{name}"
        if not values.is_name(key, name, mistakes):
            continue
        kind = table.get("provider")
        if not isinstance(kind, str) or kind not in PROVIDERS:
            mistakes[f"{key}.provider"] = f"must be one of {', '.join(sorted(PROVIDERS))}"
            continue
        settings = {k: v for k, v in table.items() if k != "provider"}
        route = _route(key, kind, settings, environ, mistakes)
        if route is not None:
            made.append(route)
    return made


def _route(
    key: str,
    kind: str,
    given: dict[str, Any],
    environ: Mapping[str, str],
    mistakes: dict[str, str],
) -> tuple[Provider[Any, Any], Any] | None:
    """One route; None when something about it is wrong and listed."""
    chosen = PROVIDERS[kind]
    hints = typing.get_type_hints(chosen.Settings)
    before = len(mistakes)
    name = key.removeprefix("routes.")
    told: dict[str, Any] = {"name": name, "account": name}
    for setting, value in given.items():
        if setting not in hints or setting == "name":
            known = ", ".join(sorted(set(hints) - {"name"}))
            mistakes[f"{key}.{setting}"] = f"is not a setting of {kind}; there are: {known}"
        else:
            told[setting] = _value(f"{key}.{setting}", hints[setting], value, environ, mistakes)
    for one in dataclasses.fields(chosen.Settings):
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if required and one.name not in told:
            mistakes[f"{key}.{one.name}"] = f"is missing; {kind} needs it"
    if isinstance(told.get("base_url"), str):
        values.url(f"{key}.base_url", told["base_url"], mistakes)
    if len(mistakes) > before:
        return None
    made = chosen.Settings(**told)
    try:
        return chosen(made), made
    except ValueError as error:
        mistakes[key] = str(error)
        return None


def _value(
    key: str, hint: Any, value: Any, environ: Mapping[str, str], mistakes: dict[str, str]
) -> Any:
    """A setting as its dataclass wants it, secrets resolved."""
    if hint is Secret:
        return values.secret(key, value, environ, mistakes)
    if typing.get_origin(hint) is tuple:
        several = value if isinstance(value, list) else [value]
        return tuple(values.secret(key, one, environ, mistakes) for one in several)
    if hint == Mapping[str, Secret]:
        given = (value if isinstance(value, dict) else {"?": value}).items()
        return {name: values.secret(f"{key}.{name}", one, environ, mistakes) for name, one in given}
    if hint is Definition:
        return _definition(key, value, mistakes)
    if _allows(hint, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        mistakes[key] = error.errors(include_url=False, include_input=False)[0]["msg"]
        return None


def _allows(hint: Any, kind: type) -> bool:
    if isinstance(hint, types.UnionType):
        return kind in typing.get_args(hint)
    return hint is kind


def _definition(key: str, value: Any, mistakes: dict[str, str]) -> Definition | None:
    try:
        return definitions.load(value)
    except DefinitionError as error:
        wrong = error.mistakes.items()
        mistakes.update({f"{key}.{part}" if part else key: why for part, why in wrong})
    return None


def workflows(
    parsed: sections.File, providers: tuple[Provider[Any, Any], ...], mistakes: dict[str, str]
) -> dict[str, tuple[Step, ...]]:
    """The steps of each. A route that is wrong itself may be named: it is listed already."""
    channels = {provider.name: provider.channel for provider in providers}
    named = set(channels) | set(parsed.routes)
    made = {}
    for name, workflow in parsed.workflows.items():
        for at, step in enumerate(workflow.steps):
            key = f"workflows.{name}.steps.{at}"
            wrong = [_mismatch(route, step.channel, named, channels) for route in step.routes]
            if any(wrong):
                mistakes[f"{key}.routes"] = "; ".join(problem for problem in wrong if problem)
        made[name] = tuple(_step(step) for step in workflow.steps)
    return made


def _mismatch(route: str, channel: str, named: set[str], channels: Mapping[str, str]) -> str | None:
    """Why a step of that channel cannot use that route."""
    if route not in named:
        return f"there is no route {route!r}; there are: {', '.join(sorted(named)) or 'none'}"
    if channels.get(route, channel) != channel:
        return f"{route!r} serves {channels[route]}, not {channel}"
    return None


def _step(step: sections.Step) -> Step:
    return Step(
        channel=step.channel,
        routes=tuple(step.routes),
        patience=step.patience,
        until=Until(step.until),
        on_failed=OnFailed(step.on_failed),
        on_unknown=OnUnknown(step.on_unknown),
    )
