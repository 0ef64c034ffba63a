"""Several processes, one scrape: real processes, since what they share is files."""

import os
import subprocess
import sys
from pathlib import Path

from metrics.scraped import samples

from gateway.metrics import shared

CHILD = """
import os, sys
from gateway.metrics import PrometheusMeter, Standing, shared
meter = PrometheusMeter(shared.folder_of(os.environ))
for _ in range(int(sys.argv[1])):
    meter.refused("/otp/send", "cool_down")
    meter.committed(4, 0.003)
meter.stands(Standing(queue=int(sys.argv[1]), lag=float(sys.argv[1])))
meter.flush()
print(os.getpid(), flush=True)
sys.stdin.readline()
text, _ = meter.render("")
sys.stdout.write(text.decode())
"""


def child(folder: Path, count: int) -> "subprocess.Popen[str]":
    """A process that counts so often, says its id, and tells a scrape when it is asked."""
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", CHILD, str(count)],
        env=dict(os.environ) | {shared.VARIABLE: str(folder)},  # noqa: TID251
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_whoever_is_asked_tells_the_sum_of_all(tmp_path: Path) -> None:
    (tmp_path / "counter_1.db").write_bytes(b"of an earlier service")
    shared.clear(tmp_path)
    first, second = child(tmp_path, 3), child(tmp_path, 5)
    assert first.stdout is not None
    assert second.stdout is not None
    gone = int(first.stdout.readline())
    second.stdout.readline()
    told, _ = first.communicate("scrape\n", timeout=30)
    shared.forget(tmp_path, gone)
    later, _ = second.communicate("scrape\n", timeout=30)

    for text in (told, later):
        assert {("/otp/send", "cool_down"): 8} == samples(text, "otp_refusals_total")
        assert {(): 32} == samples(text, "otp_ledger_batch_operations_sum")
        assert {(): 8} == samples(text, "otp_ledger_commit_duration_seconds_count")
    assert {(): 8} == samples(told, "otp_ledger_queue_operations")
    assert {(): 5} == samples(told, "otp_reconcile_lag_seconds")
    assert {(): 5} == samples(later, "otp_ledger_queue_operations")


def test_without_the_variable_a_process_tells_of_itself() -> None:
    assert shared.folder_of({shared.VARIABLE: ""}) is None
