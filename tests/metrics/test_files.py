"""Alert rules and dashboard: what they name exists, with real labels and labels' values."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.domain.delivery import Cause, State
from gateway.domain.health import Reason
from gateway.domain.verification import Status
from gateway.metrics import CATALOGUE
from gateway.services import metering, receive
from gateway.store.records import PARKED

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
OPERATIONS = ROOT / "docs/operations.md"

# Prometheus' own, and prometheus_client's of the process.
FOREIGN = {
    "up": {"job", "instance"},
    "process_cpu_seconds_total": {"job", "instance"},
    "process_resident_memory_bytes": {"job", "instance"},
}
WORDS: dict[tuple[str, str], set[str]] = {  # labels whose values are ours to know
    ("otp_outcomes_total", "kind"): {
        "accepted", "unknown", "temporary", "throttled", "account", "permanent", "released",
        "withdrawn",
    },
    ("otp_receipts_total", "verdict"): {
        metering.APPLIED, metering.LATE, metering.REPEATED, metering.UNKNOWN_WORD, metering.LINKED,
        metering.NO_ATTEMPT, metering.REFUSED, PARKED, receive.MALFORMED,
        receive.OTHER_NUMBER, receive.NO_REFERENCE, receive.OTHER_ACCOUNT,
    },
    ("otp_receipts_total", "source"): {"receipt", "poll"},
    ("otp_webhooks_total", "outcome"): {"delivered", "refused", "gone", "unreachable"},
    ("otp_limits_total", "verdict"): {"refused", "shadow"},
    ("otp_route_changes_total", "standing"): {"paused", "ready"},
    ("otp_route_changes_total", "reason"): {*Reason, "operator"},
    ("otp_sends_total", "result"): {"started", "joined"},
    ("otp_checks_total", "result"): {"passed", "wrong"},
    ("otp_fallbacks_total", "cause"): set(Cause),
    ("otp_transitions_total", "state"): set(State),
    ("otp_receipt_latency_seconds", "state"): {State.DELIVERED, State.READ},
    ("otp_verifications_ended_total", "status"): set(Status),
}  # fmt: skip
_NAME = re.compile(r"\b(?:otp|process)_[a-z_]+|\bup\b(?=\{)")
_SELECTOR = re.compile(r"\b([a-z_]+)\{([^}]*)\}")
_MATCHER = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target


EXPRESSIONS = [
    *((f"alert {rule['alert']}", rule["expr"]) for rule in rules()),
    *((f"panel {title} {target['refId']}", target["expr"]) for title, target in targets()),
]


def base(name: str) -> str:
    """A sample's metric: a histogram has several samples."""
    for suffix in ("_bucket", "_sum", "_count"):
        metric = CATALOGUE.get(name.removesuffix(suffix))
        if name.endswith(suffix) and metric is not None and metric.buckets:
            return metric.name
    return name


def labels_of(name: str) -> set[str]:
    """Whatever may stand in its braces."""
    if name in FOREIGN:
        return FOREIGN[name]
    labels = {*CATALOGUE[base(name)].labels, "job", "instance"}
    return labels | {"le"} if name.endswith("_bucket") else labels


def names(expression: str) -> set[str]:
    return set(_NAME.findall(expression))


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[one for one, _ in EXPRESSIONS])
def test_every_metric_and_label_is_real(where: str, expression: str) -> None:
    named = names(expression)
    unknown = {name for name in named if name not in FOREIGN and base(name) not in CATALOGUE}
    wrong = [
        (name, label)
        for name, matchers in _SELECTOR.findall(expression)
        for label, _ in _MATCHER.findall(matchers)
        if label not in labels_of(name)
    ]
    known = set.union(*(labels_of(name) for name in named))
    grouped = {
        label.strip() for group in _GROUPING.findall(expression) for label in group.split(",")
    }

    assert named
    assert set() == unknown
    assert [] == wrong
    assert set() == grouped - known


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[one for one, _ in EXPRESSIONS])
def test_every_word_that_is_matched_is_one_that_is_counted(where: str, expression: str) -> None:
    """A matcher with a misspelt value matches nothing, for ever and in silence."""
    for name, matchers in _SELECTOR.findall(expression):
        for label, value in _MATCHER.findall(matchers):
            if (base(name), label) in WORDS:
                assert set(value.split("|")) <= WORDS[base(name), label]


def test_events_and_codes_that_alerts_name_are_in_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("gateway/**/*.py"))
    text = RULES.read_text(encoding="utf-8")
    matched = re.findall(r'(?:event|code)=~?"([^"]*)"', text)

    assert matched
    for word in "|".join(matched).split("|"):
        assert f'"{word}"' in code


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_metric_is_shown_or_alerted_on(name: str) -> None:
    assert any(name in {base(one) for one in names(expression)} for _, expression in EXPRESSIONS)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_is_wrong(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert f"`{rule['alert']}`" in OPERATIONS.read_text(encoding="utf-8")


def test_legends_use_labels_that_the_expression_keeps() -> None:
    for title, target in targets():
        kept = ",".join(_GROUPING.findall(target["expr"]))
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert label in kept, title


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(panels) == len({panel["id"] for panel in panels})
    assert len(cells) == len(set(cells))


def test_the_list_for_people_is_the_catalogue() -> None:
    """docs/operations.md has a line for each, with its labels in their order."""
    rows = re.findall(
        r"^\| `(otp_[a-z_]+)` \|([^|]*)\|", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE
    )

    assert {name: list(one.labels) for name, one in CATALOGUE.items()} == {
        name: re.findall(r"`(\w+)`", labels) for name, labels in rows
    }


def test_names_follow_the_conventions() -> None:
    for name, metric in CATALOGUE.items():
        counter = not metric.buckets and metric.mode is None
        assert counter == name.endswith("_total")
        assert not {"le", "quantile", "job", "instance"} & set(metric.labels)
        assert metric.about.endswith(".")


def test_promtool_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(  # noqa: S603
        [promtool, "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout + done.stderr
