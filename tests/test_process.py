"""What ends a process besides a signal."""

import asyncio
import shutil
from pathlib import Path

import pytest
from rig import keyring, make_settings

from gateway.app import process
from gateway.app.gateway import Gateway
from gateway.sandbox import Sandbox


@pytest.mark.sqlite
async def test_a_process_whose_ledger_has_ended_ends(
    tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could store nothing any more; whoever runs it starts another."""
    settings = make_settings(tmp_path)
    shutil.copy(migrated, settings.database)
    monkeypatch.setattr(process, "stop_signal", asyncio.Event)

    async def started(gateway: Gateway, simulated: Sandbox | None) -> None:
        assert gateway.ledger._running is not None
        gateway.ledger._running.cancel()

    with pytest.raises(RuntimeError, match="the ledger has ended"):
        await process.serve(
            settings,
            keyring(),
            process.bind("127.0.0.1", 0),
            None,
            started=started,
        )
