"""PostgreSQL goes down and comes back: nothing is accepted that is not stored, and nobody has to do
anything afterwards.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import Clock
from postgres import Cluster
from rig import Rig

from gateway.ports import Server
from gateway.store import schema

pytestmark = pytest.mark.postgres


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A server of the test's own, with the schema."""
    made = Cluster()
    try:
        made.make()
        made.start()
        schema.upgrade(Server(made.url))
        monkeypatch.setattr(Rig, "server", Server(made.url))
        yield made
    finally:
        made.remove()


async def test_all_is_refused_while_it_is_away_and_goes_on_when_it_is_back(
    cluster: Cluster, tmp_path: Path, migrated: Path, clock: Clock
) -> None:
    async with Rig(tmp_path, migrated, clock) as rig:
        sent = await rig.send(workflow="sms")
        named = {"verification_id": sent["verification_id"]}
        (sms,) = rig.transport.submissions
        before = rig.dump()
        reference = rig.reference_of(sms)
        cluster.stop()
        refused = [
            await rig.call("/otp/send", {"to": "+33611111111"}),
            await rig.octopush_receipt(sms, "DELIVERED", message_id=reference),
            await rig.verify(sent["verification_id"], sms.code),
            await rig.call("/otp/status", named),
        ]
        ready = await rig.http.get("/readyz")
        cluster.start()
        stored = rig.dump()
        receipt = await rig.octopush_receipt(sms, "DELIVERED")
        checked = await rig.verify(sent["verification_id"], sms.code)
        again = await rig.send("+33611111111", workflow="sms")

        assert [(503, "storage", "1")] * 4 == [
            (one.status_code, one.json()["code"], one.headers.get("retry-after")) for one in refused
        ]
        assert (503, True) == (ready.status_code, "database" in ready.json()["problems"])
        assert before == stored
        assert (200, 200) == (receipt.status_code, checked.status_code)
        assert ["sms:DELIVERED"] == rig.states(sent["verification_id"])
        assert ["sms:SENT"] == rig.states(again["verification_id"])
