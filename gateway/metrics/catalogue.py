"""Every metric of ours, one a line: the only place where names, labels and buckets are said.

Names and units follow Prometheus' conventions (https://prometheus.io/docs/practices/naming/):
base units in the name, counters end in `_total`. docs/operations.md repeats the table for people;
a test compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Mode = Literal["livesum", "livemax", "max"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `buckets` make it a histogram; `mode`, how the values of several processes become
    one, a gauge. Else it is a counter.
    """

    name: str
    about: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    mode: Mode | None = None


_MESSAGE = (0.5, 1, 2, 3, 5, 8, 13, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800, 7200)
_CALL = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 3, 5, 8, 13, 20, 30, 60)
_DISK = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2)
_LOOP = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

SENDS = Metric("otp_sends_total", "Requests to send, stored.", ("channel", "result"))
FALLBACKS = Metric(
    "otp_fallbacks_total",
    "Attempts handed over because an earlier one did not do, by the reason.",
    ("channel", "cause"),
)
OUTCOMES = Metric(
    "otp_outcomes_total", "Submissions to a provider, by what came of the call.", ("route", "kind")
)
CALLS = Metric(
    "otp_provider_call_duration_seconds", "Time of a submission's call.", ("route",), _CALL
)
CROWDED = Metric(
    "otp_crowded_total", "Looks for a free slot on a route that found none.", ("route",)
)
TRANSITIONS = Metric(
    "otp_transitions_total", "States that attempts moved into.", ("channel", "state")
)
RECEIPTS = Metric(
    "otp_receipts_total",
    "Statements about attempts, by what became of them.",
    ("route", "source", "verdict"),
)
LATENCY = Metric(
    "otp_receipt_latency_seconds",
    "From an attempt's making to the receipt of its delivery or reading.",
    ("channel", "state"),
    _MESSAGE,
)
CHECKS = Metric("otp_checks_total", "Codes compared.", ("result",))
ENDED = Metric("otp_verifications_ended_total", "Verifications, by their end.", ("status",))
LIMITS = Metric(
    "otp_limits_total",
    "Sends that met a rule's limit, refused or, in shadow, let through.",
    ("rule", "verdict"),
)
WEBHOOKS = Metric("otp_webhooks_total", "Webhooks tried, by what came of it.", ("outcome",))
BREAKER = Metric(
    "otp_route_changes_total",
    "Times that a breaker paused a route or resumed it, by the reason of the pause.",
    ("route", "standing", "reason"),
)
REFUSALS = Metric(
    "otp_refusals_total", "Requests answered with a problem, by its code.", ("call", "code")
)
WARNINGS = Metric(
    "otp_warnings_total", "Odd things that a batch noted in the log, by event.", ("event",)
)
RERUNS = Metric("otp_ledger_reruns_total", "Batches that had to be decided again.")
BATCHES = Metric("otp_ledger_batch_operations", "Operations in one commit.", (), _BATCH)
COMMITS = Metric("otp_ledger_commit_duration_seconds", "Time a commit took.", (), _DISK)
QUEUE = Metric("otp_ledger_queue_operations", "Operations that wait now.", mode="livesum")
UNDER_WAY = Metric("otp_calls_under_way", "Calls to providers under way now.", mode="livesum")
LAG = Metric(
    "otp_reconcile_lag_seconds", "How long the oldest due verification waits.", mode="livemax"
)
PASSED = Metric(
    "otp_reconcile_last_pass_timestamp_seconds", "When the reconciler last came through.",
    mode="max",
)  # fmt: skip
LOOP = Metric("otp_event_loop_lag_seconds", "How late the event loop wakes a timer.", (), _LOOP)
DROPPED = Metric("otp_log_lines_dropped_total", "Log lines that could not be written.")
BUILD = Metric("otp_build_info", "The version that runs.", ("version",), mode="max")

CATALOGUE: Mapping[str, Metric] = {
    one.name: one
    for one in (
        SENDS, FALLBACKS, OUTCOMES, CALLS, CROWDED, TRANSITIONS, RECEIPTS, LATENCY, CHECKS, ENDED,
        LIMITS, WEBHOOKS, BREAKER, REFUSALS, WARNINGS, RERUNS, BATCHES, COMMITS, QUEUE, UNDER_WAY,
        LAG, PASSED, LOOP, DROPPED, BUILD,
    )
}  # fmt: skip
