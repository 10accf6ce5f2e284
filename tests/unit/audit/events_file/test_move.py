"""The move of the events file while the bus is down."""

import logging
from pathlib import Path
from typing import Any, cast

import pytest

from toolbus_audit.events_file.store import open_file
from toolbus_audit.ingest import moved_file
from toolbus_common.errors import BusDownError
from toolbus_common.settings import EVENTS_FILE, MOVED_EVENTS_FILE


async def test_the_reason_of_a_wait_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(moved_file, "RETRY_SECONDS", 0.001)
    caplog.set_level(logging.INFO, moved_file.log.name)
    file = tmp_path / EVENTS_FILE
    open_file(file).close()
    reasons = ["one", "one", "two"]

    async def stream() -> str:
        if reasons:
            raise BusDownError(reasons.pop(0))
        return "1"

    await moved_file.move(file, cast("Any", None), stream, cast("Any", None))
    waits = [each for each in caplog.records if each.message == "audit.move_waiting"]
    assert [each.__dict__["reason"] for each in waits] == ["one", "two"]
    assert (tmp_path / MOVED_EVENTS_FILE).exists()
