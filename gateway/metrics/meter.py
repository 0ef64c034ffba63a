"""The counting. On the path of a message it costs a dictionary's update a fact.

What was gathered is given to prometheus_client a few times a second and before every scrape, since
its own counters take a lock, and a write into a shared file, for each step of 1.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
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
from gateway.services.left import Left
from gateway.services.metering import Heard, Held, kind_of
from gateway.store.ledger import Tally

# Attempts a person or client asked for are no fallbacks.
_FALLBACKS = frozenset({Cause.SILENCE, Cause.FAILED, Cause.REFUSED, Cause.UNKNOWN})

Key = tuple[str, ...]  # a metric's name and its labels

_UNCALLED = frozenset({Released, Withdrawn})  # submissions that ended before the wire
_OUTCOMES, _CALLS = catalogue.OUTCOMES.name, catalogue.CALLS.name
_RECEIPTS, _LATENCY = catalogue.RECEIPTS.name, catalogue.LATENCY.name
_BATCHES, _COMMITS = (catalogue.BATCHES.name,), (catalogue.COMMITS.name,)


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
        self._noted: dict[tuple[str, Any], int] = {}  # notes of one kind that say the same
        self._child((catalogue.BUILD.name, __version__)).set(1)

    # What is counted as it happens.

    def follow(self, left: Left) -> None:
        """What a committed batch left behind."""
        noted, counts = self._noted, self._counts
        for event, facts, level in left.get(Note, ()):
            counted = _NOTES.get(event)
            if counted is not None:
                kind = event, counted[0](facts)
            elif level != "info":
                kind = event, None
            else:
                continue
            noted[kind] = noted.get(kind, 0) + 1
        for route, source, verdict, channel, state, seconds in left.get(Heard, ()):
            key: Key = (_RECEIPTS, route, source, verdict)
            counts[key] = counts.get(key, 0) + 1
            if state is not None:
                self._observe((_LATENCY, channel, state), seconds)
        for _, attempt, *_ in left.get(Handover, ()):
            if attempt.cause in _FALLBACKS and attempt.tries == 1:
                self._count((catalogue.FALLBACKS.name, attempt.channel, attempt.cause))
        for _, route in left.get(Crowded, ()):
            self._count((catalogue.CROWDED.name, route))
        for rule, verdict in left.get(Held, ()):
            self._count((catalogue.LIMITS.name, rule, verdict))

    def called(self, route: str, result: object, seconds: float) -> None:
        """A submission came to its end, and its outcome is stored; of a refusal its kind counts."""
        self._count((_OUTCOMES, route, kind_of(result)))
        if type(result) not in _UNCALLED:
            self._observe((_CALLS, route), seconds)

    def posted(self, outcome: str) -> None:
        """A webhook was tried."""
        self._count((catalogue.WEBHOOKS.name, outcome))

    def refused(self, call: str, code: str) -> None:
        """A request was answered with a problem."""
        self._count((catalogue.REFUSALS.name, call, code))

    def committed(self, operations: int, seconds: float) -> None:
        """The ledger has made a batch durable."""
        self._observe(_BATCHES, operations)
        self._observe(_COMMITS, seconds)

    def woken_late(self, seconds: float) -> None:
        """The event loop ran a timer so many seconds after its time."""
        self._observe((catalogue.LOOP.name,), seconds)

    def _count(self, key: Key, by: int = 1) -> None:
        self._counts[key] = self._counts.get(key, 0) + by

    def _observe(self, key: Key, value: float) -> None:
        bins = self._bins.get(key)
        if bins is None:
            bins = self._bins[key] = _Bins(CATALOGUE[key[0]].buckets)
        # The first bucket whose bound is not below it; the last one takes the rest.
        bins.counts[bisect_left(bins.bounds, value)] += 1
        bins.total += value

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
        noted, self._noted = self._noted, {}
        for (event, said), count in noted.items():
            known = _NOTES[event][1](said) if event in _NOTES else (catalogue.WARNINGS.name, event)
            if known is not None:
                self._count(known, count)
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


def _changed(standing: str, route: str, reason: str) -> Key:
    """A breaker's change; what an operator wrote as a reason is none of its words."""
    known = reason if reason in set(Reason) else "operator"
    return catalogue.BREAKER.name, route, standing, known


def _moved(channel: str, before: object, state: str) -> Key | None:
    """A state moved into; what was merely said again moves nothing."""
    return None if before == state else (catalogue.TRANSITIONS.name, channel, state)


def _nothing(_: object) -> None:
    """Of such a note it only counts that it is there."""


# What of a note's facts is counted, taken on the path of a message, where it must cost little; and
# the key of that, made when it is given to the registry.
_NOTES: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Key | None]]] = {
    "verification_accepted": (
        itemgetter("channel", "joined"),
        lambda said: (catalogue.SENDS.name, said[0], "joined" if said[1] else "started"),
    ),
    "attempt_heard": (itemgetter("channel", "before", "state"), lambda said: _moved(*said)),
    "check_passed": (_nothing, lambda _: (catalogue.CHECKS.name, "passed")),
    "check_failed": (_nothing, lambda _: (catalogue.CHECKS.name, "wrong")),
    "verification_ended": (itemgetter("status"), lambda said: (catalogue.ENDED.name, said)),
    "spend_cap_shadow": (_nothing, lambda _: (catalogue.LIMITS.name, "spend", "shadow")),
    "route_paused": (itemgetter("route", "reason"), lambda said: _changed("paused", *said)),
    "route_silent": (itemgetter("route", "reason"), lambda said: _changed("paused", *said)),
    "route_resumed": (itemgetter("route", "was"), lambda said: _changed("ready", *said)),
}
