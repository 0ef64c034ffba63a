"""The live parts, assembled once by `app` and passed as first argument.

Providers and transports are met only here, together, as a `Route`.
"""

import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.domain import addresses
from gateway.domain.addresses import PHONE
from gateway.domain.catalogue import Catalogue
from gateway.domain.delivery import State
from gateway.domain.errors import InvalidInput, Unavailable
from gateway.domain.explanation import Coming
from gateway.domain.keyring import Keyring
from gateway.domain.policy import Policy
from gateway.domain.retention import Retention
from gateway.domain.verification import MIN_LIFE
from gateway.domain.workflow import (
    NO_ADDRESS,
    Plan,
    PlannedRoute,
    PlannedStep,
    Step,
    Until,
    less,
    starts,
    without,
)
from gateway.ports import (
    CALLBACK_LIMIT,
    NO_TRACER,
    Asks,
    Confirms,
    Correlation,
    Polls,
    Provider,
    Receipt,
    Revokes,
    Sender,
    Tracer,
    Transport,
)
from gateway.services.case import Outage
from gateway.services.counting import Passes
from gateway.services.lately import Lately
from gateway.services.metering import UNMETERED, Meter
from gateway.services.standing import Routes
from gateway.services.waiting import Waiting
from gateway.store.engine import Engine
from gateway.store.ledger import Ledger
from gateway.store.reads import Reads, encode_plan

ROUTE = "route:"  # before a route's name, in place of a workflow's: this route alone
TRYING = 60  # seconds of patience there
# Gives a parked receipt's reference, of that account, to the attempt to the number it names, as of
# then, if one can be told: services.naming.
Placing = Callable[[str, Receipt, datetime], Awaitable[None]]
_NOBODY = str(UUID(int=0))  # an attempt, to see whether a provider can be asked about any


@dataclass(frozen=True, slots=True)
class Route:
    """One channel of an account, ready to send. What its provider can do besides is looked up once:
    asking a protocol costs more than most of what a receipt does.
    """

    name: str
    provider: Provider[Any, Any]
    transport: Transport[Any, Any]
    callback_limit: int = CALLBACK_LIMIT  # bytes of a callback's body
    traceparent: bool = False  # whether its provider is told our trace
    polls: Polls | None = field(init=False)
    asks: Asks | None = field(init=False)
    confirms: Confirms | None = field(init=False)
    revokes: Revokes | None = field(init=False)

    @property
    def by_number(self) -> bool:
        """Whether its attempts may lack the reference that receipts name, though they were taken:
        a repeated call does not bring it."""
        provider = self.provider
        return provider.idempotent and provider.correlates is Correlation.REFERENCE

    def __post_init__(self) -> None:
        skills = (("polls", Polls), ("asks", Asks), ("confirms", Confirms), ("revokes", Revokes))
        for name, skill in skills:
            able = self.provider if isinstance(self.provider, skill) else None
            object.__setattr__(self, name, able)


@dataclass(frozen=True, slots=True)
class Workflow:
    """A configured workflow."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A resolved plan with its JSON and digest; `life`: the seconds a code must live for its last
    step to start in time."""

    plan: Plan
    digest: bytes
    body: str
    life: int


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything a service may use."""

    engine: Engine
    ledger: Ledger
    reads: Reads
    keyring: Keyring
    routes: Mapping[str, Route]
    workflows: Mapping[str, Workflow]
    public_url: str
    catalogue: Catalogue
    default_region: str | None
    now: Callable[[], datetime]
    entropy: Callable[[int], bytes]
    outage: Outage
    place: Placing
    waiting: Waiting = field(default_factory=Waiting)
    standing: Routes = field(default_factory=Routes)
    used_keys: dict[UUID, datetime] = field(default_factory=dict)  # see services.keys
    test: "Runtime | None" = None  # what test keys reach instead: the sandbox's routes alone
    meter: Meter = UNMETERED
    tracer: Tracer = NO_TRACER
    retention: Retention = field(default_factory=Retention)
    policy: Policy = field(default_factory=Policy)
    lately: Lately | None = None  # what was refused, for the console
    passes: Passes = field(default_factory=Passes)
    futures: dict[tuple[bytes, bool], Coming] = field(default_factory=dict)  # see send.coming
    _plans: dict[tuple[str, str, tuple[str, ...]], Chosen] = field(default_factory=dict)

    def choose(
        self,
        workflow: str | None,
        channel: str | None,
        region: str,
        kinds: tuple[str, ...] = (PHONE,),
    ) -> Chosen:
        """The plan for a request: a workflow by name, one channel alone, or the default workflow;
        without the steps for which the recipient's addresses (of these kinds) have none.

        Raises InvalidInput `unknown_workflow` or `unknown_channel`, naming those there are, or
        `no_address`, and Unavailable `no_route` when all of its routes are disabled.
        """
        name = f"channel:{channel}" if channel is not None else workflow or "default"
        chosen = self._plans.get((name, region, kinds))
        if chosen is None:
            configured = self._alone(channel) if channel is not None else self._workflow(name)
            plan = reaching(resolve(self.routes, configured, region), kinds)
            chosen = self._plans[name, region, kinds] = sealed(plan)
        return chosen if not self.standing.shut else self._less(chosen)

    def _less(self, chosen: Chosen) -> Chosen:
        """The plan in the order of the moment: without the routes that are paused or disabled."""
        plan = less(chosen.plan, self.standing.shut)
        if plan is None:
            raise Unavailable(
                "no_route",
                "Every route of this workflow has been disabled. Choose another workflow or "
                "channel, or ask the operator.",
                retry_after=60,
            )
        return chosen if plan is chosen.plan else sealed(plan)

    def _workflow(self, name: str) -> Workflow:
        if name.startswith(ROUTE):
            return self._over(name)
        if name not in self.workflows:
            raise InvalidInput(
                "unknown_workflow",
                f"There is no such workflow. There are: {', '.join(sorted(self.workflows))}.",
            )
        return self.workflows[name]

    def _over(self, name: str) -> Workflow:
        """A workflow of exactly one route: how an operator tries a new account."""
        route = self.routes.get(name.removeprefix(ROUTE))
        if route is None:
            known = ", ".join(sorted(self.routes))
            raise InvalidInput("unknown_route", f"There is no such route. There are: {known}.")
        provider = route.provider
        until = Until.DELIVERED if State.DELIVERED in provider.confirms else Until.SENT
        return Workflow(name, (Step(provider.channel, (provider.name,), TRYING, until),))

    def _alone(self, channel: str) -> Workflow:
        """A workflow of that channel only: no silent switch (rule 7)."""
        name = f"channel:{channel}"
        for workflow in self.workflows.values():
            for step in workflow.steps:
                if step.channel == channel:
                    return Workflow(name, (step,))
        routes = tuple(r.name for r in self.routes.values() if r.provider.channel == channel)
        if not routes:
            channels = sorted({route.provider.channel for route in self.routes.values()})
            raise InvalidInput(
                "unknown_channel",
                f"No route serves that channel. There are: {', '.join(channels)}.",
            )
        return Workflow(name, (Step(channel, routes, 60, Until.DELIVERED),))


def sealed(plan: Plan) -> Chosen:
    """A plan with its JSON and digest."""
    body = encode_plan(plan)
    life = starts(plan)[-1] + MIN_LIFE
    return Chosen(plan, hashlib.sha256(body).digest()[:16], body.decode(), life)


def reaching(plan: Plan, kinds: Collection[str]) -> Plan:
    """The plan less the steps for whose channel the recipient has no address. Raises InvalidInput
    `no_address` when none is left."""
    channels = list(dict.fromkeys(step.channel for step in plan.steps))
    if not any(addresses.reached(channel, kinds) for channel in channels):
        raise InvalidInput(
            "no_address",
            f"The recipient has no address for {', '.join(channels)}. Give one in `to`, or choose "
            "another workflow or channel.",
            facts={"channels": channels},
        )
    return without(plan, lambda channel, route: _unreached(channel, kinds))


def _unreached(channel: str, kinds: Collection[str]) -> str | None:
    return None if addresses.reached(channel, kinds) else NO_ADDRESS


def resolve(routes: Mapping[str, Route], workflow: Workflow, region: str) -> Plan:
    """A workflow as a plan: what each route declares, and the sender for the number's country."""
    return Plan(
        workflow.name,
        tuple(
            PlannedStep(
                channel=step.channel,
                routes=tuple(_planned(routes[name].provider, region) for name in step.routes),
                patience=step.patience,
                until=step.until,
                on_failed=step.on_failed,
                on_unknown=step.on_unknown,
            )
            for step in workflow.steps
        ),
        region=region,
    )


def _planned(provider: Provider[Any, Any], region: str) -> PlannedRoute:
    return PlannedRoute(
        name=provider.name,
        account=provider.account,
        sender=sender_for(provider.sender, region),
        confirms=provider.confirms,
        idempotent=provider.idempotent,
        polls=polls(provider),
    )


def polls(provider: Provider[Any, Any]) -> bool:
    """Whether it can be asked about a message: some can on one channel and not on another."""
    return isinstance(provider, Polls) and provider.build_poll(_NOBODY, "any") is not None


def revokes(provider: Provider[Any, Any]) -> bool:
    """Whether it can take a message back."""
    return isinstance(provider, Revokes) and provider.build_revoke(_NOBODY, "any") is not None


def sender_for(sender: Sender, region: str) -> str | None:
    """The sender in a country; a table may have a `default`."""
    if sender is None or isinstance(sender, str):
        return sender
    return sender.get(region, sender.get("default"))
