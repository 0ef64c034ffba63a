"""The counting. On the path of a message it costs a dictionary's update a fact.

What was gathered is given to prometheus_client a few times a second and before every scrape, since
its own counters take a lock, and a write into a shared file, for each step of 1.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

from gateway import __version__
from gateway.domain.delivery import Cause
from gateway.domain.health import Reason
from gateway.metrics import catalogue
from gateway.metrics.catalogue import CATALOGUE, Metric
from gateway.metrics.sampling import Standing
from gateway.services.case import Crowded, Handover, Note
from gateway.services.dispatch import Released, Withdrawn
from gateway.services.metering import Heard, Held, kind_of
from gateway.store.ledger import Tally

# Attempts a person or client asked for are no fallbacks.
_FALLBACKS = frozenset({Cause.SILENCE, Cause.FAILED, Cause.REFUSED, Cause.UNKNOWN})

Key = tuple[str, ...]  # a metric's name and its labels

_UNCALLED = Released | Withdrawn  # submissions that ended before the wire


class _Gathered(Histogram):
    """A histogram that takes many observations at once, already in their buckets."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """So many in each bucket, and what they sum up to."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class _Bins:
    """Observations gathered for one child."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.clear()

    def clear(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """The first bucket whose bound is not below it; the last one takes the rest."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class PrometheusMeter:
    """One process's metrics, in a registry of their own. With `shared`, the folder in which all
    processes of the service keep theirs, a scrape tells of all of them.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared
        self._registry = CollectorRegistry()
        self._metrics = {name: _made(one, self._registry) for name, one in CATALOGUE.items()}
        if shared is None:  # these tell of the process that is asked
            ProcessCollector(registry=self._registry)
            GCCollector(registry=self._registry)
        self._children: dict[Key, Any] = {}  # bound once
        self._counts: dict[Key, int] = {}  # since the last flush
        self._bins: dict[Key, _Bins] = {}
        self._last = Standing()
        self._following: dict[type, Callable[[Any], Key | None]] = {
            Note: _noted,
            Handover: _handed_over,
            Crowded: lambda crowded: (catalogue.CROWDED.name, crowded.route),
            Heard: self._heard,
            Held: lambda held: (catalogue.LIMITS.name, held.rule, held.verdict),
        }
        self._child((catalogue.BUILD.name, __version__)).set(1)

    # What is counted as it happens.

    def follow(self, items: Sequence[object]) -> None:
        """What a committed batch left behind."""
        following, counts = self._following, self._counts
        for item in items:
            counted_as = following.get(type(item))
            if counted_as is not None and (key := counted_as(item)) is not None:
                counts[key] = counts.get(key, 0) + 1

    def called(self, route: str, result: object, seconds: float) -> None:
        """A submission came to its end, and its outcome is stored; of a refusal its kind counts."""
        kind = kind_of(result)
        self._count((catalogue.OUTCOMES.name, route, kind))
        if not isinstance(result, _UNCALLED):
            self._observe((catalogue.CALLS.name, route), seconds)

    def posted(self, outcome: str) -> None:
        """A webhook was tried."""
        self._count((catalogue.WEBHOOKS.name, outcome))

    def refused(self, call: str, code: str) -> None:
        """A request was answered with a problem."""
        self._count((catalogue.REFUSALS.name, call, code))

    def committed(self, operations: int, seconds: float) -> None:
        """The ledger has made a batch durable."""
        self._observe((catalogue.BATCHES.name,), operations)
        self._observe((catalogue.COMMITS.name,), seconds)

    def woken_late(self, seconds: float) -> None:
        """The event loop ran a timer so many seconds after its time."""
        self._observe((catalogue.LOOP.name,), seconds)

    def _heard(self, heard: Heard) -> Key:
        route, source, verdict, channel, state, seconds = heard
        if state is not None:
            self._observe((catalogue.LATENCY.name, channel, state), seconds)
        return catalogue.RECEIPTS.name, route, source, verdict

    def _count(self, key: Key, by: int = 1) -> None:
        self._counts[key] = self._counts.get(key, 0) + by

    def _observe(self, key: Key, value: float) -> None:
        bins = self._bins.get(key)
        if bins is None:
            bins = self._bins[key] = _Bins(CATALOGUE[key[0]].buckets)
        bins.add(value)

    # What stands, and what is told.

    def stands(self, standing: Standing) -> None:
        """Take a sample; of what only grows, count what came since the last one."""
        self._child((catalogue.QUEUE.name,)).set(standing.queue)
        self._child((catalogue.UNDER_WAY.name,)).set(standing.under_way)
        self._child((catalogue.LAG.name,)).set(standing.lag)
        if standing.last_pass is not None:
            self._child((catalogue.PASSED.name,)).set(standing.last_pass.timestamp())
        self._count((catalogue.RERUNS.name,), standing.reruns - self._last.reruns)
        self._count((catalogue.DROPPED.name,), standing.dropped - self._last.dropped)
        self._last = standing

    def flush(self) -> None:
        """Give what was gathered to the registry."""
        counts, self._counts = self._counts, {}
        for key, count in counts.items():
            self._child(key).inc(count)
        for key, bins in self._bins.items():
            if any(bins.counts):
                self._child(key).add(bins.counts, bins.total)
                bins.clear()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Everything, in the format of that Accept header, and its content type."""
        self.flush()
        registry = self._registry
        if self._shared is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=str(self._shared))  # type: ignore[no-untyped-call]
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def _child(self, key: Key) -> Any:
        child = self._children.get(key)
        if child is None:
            name, *labels = key
            metric = self._metrics[name]
            child = self._children[key] = metric.labels(*labels) if labels else metric
        return child


class MeteredTally(Tally):
    """The ledger's tally, told on."""

    def __init__(self, meter: PrometheusMeter) -> None:
        super().__init__()
        self._meter = meter

    def committed(self, operations: int, seconds: float) -> None:
        super().committed(operations, seconds)
        self._meter.committed(operations, seconds)


def _made(metric: Metric, registry: CollectorRegistry) -> Any:
    if metric.buckets:
        return _Gathered(
            metric.name, metric.about, metric.labels, buckets=metric.buckets, registry=registry
        )
    if metric.mode is not None:
        return Gauge(
            metric.name,
            metric.about,
            metric.labels,
            multiprocess_mode=metric.mode,
            registry=registry,
        )
    return Counter(metric.name, metric.about, metric.labels, registry=registry)


def _noted(note: Note) -> Key | None:
    event, facts, level = note
    counted_as = _NOTES.get(event)
    if counted_as is not None:
        return counted_as(facts)
    return (catalogue.WARNINGS.name, event) if level != "info" else None


def _handed_over(handover: Handover) -> Key | None:
    attempt = handover.attempt
    if attempt.cause in _FALLBACKS and attempt.tries == 1:
        return catalogue.FALLBACKS.name, attempt.channel, attempt.cause
    return None


def _changed(facts: Any, standing: str, reason: str) -> Key:
    """A breaker's change; what an operator wrote as a reason is none of its words."""
    known = reason if reason in set(Reason) else "operator"
    return catalogue.BREAKER.name, facts["route"], standing, known


def _accepted(facts: Any) -> Key:
    return catalogue.SENDS.name, facts["channel"], "joined" if facts["joined"] else "started"


def _moved(facts: Any) -> Key | None:
    """A state moved into; what was merely said again moves nothing."""
    if facts["before"] is facts["state"]:
        return None
    return catalogue.TRANSITIONS.name, facts["channel"], facts["state"]


_NOTES: Mapping[str, Callable[[Any], Key | None]] = {
    "verification_accepted": _accepted,
    "attempt_heard": _moved,
    "check_passed": lambda _: (catalogue.CHECKS.name, "passed"),
    "check_failed": lambda _: (catalogue.CHECKS.name, "wrong"),
    "verification_ended": lambda facts: (catalogue.ENDED.name, facts["status"]),
    "spend_cap_shadow": lambda _: (catalogue.LIMITS.name, "spend", "shadow"),
    "route_paused": lambda facts: _changed(facts, "paused", facts["reason"]),
    "route_silent": lambda facts: _changed(facts, "paused", facts["reason"]),
    "route_resumed": lambda facts: _changed(facts, "ready", facts["was"]),
}
