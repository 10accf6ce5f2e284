"""Logs cosigned by a third-party witness: litewitness of filippo.io/torchwood."""

import shutil
from pathlib import Path
from tempfile import mkdtemp

import pytest

from harness.audit.witnessed_audit import Auditor, auditing, declare
from harness.engines.litewitness import litewitness
from harness.waits import until_async
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings


@pytest.fixture
def near() -> Path:  # type: ignore[misc]
    """Return a directory with a short path, because socket paths have at most 107 characters."""
    directory = Path(mkdtemp(prefix="w", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


async def test_litewitness_cosigns_each_checkpoint_and_contradicts_a_log_set_back(
    settings: Settings, operator: Bus, tmp_path: Path, near: Path
) -> None:
    auditor = Auditor(settings, operator, tmp_path)
    with litewitness(near) as witness:
        fields = {"name": "lite", "url": witness.url, "key": witness.verifier}
        await declare(operator, origin="toolbus.example", witnesses=[fields])
        async with auditing(settings) as service:
            await auditor.completed(1)
            await auditor.sealed(2)
            origin, key = await auditor.origin(), str(service.status().details["signed_by"])

            async def unknown() -> bool:
                return "does not know the log" in str(service.status().details["witnesses"])

            await until_async(unknown, "it does not know the log yet")
            witness.add_log(origin, key)
            await auditor.sealed(2, "cosignatures")
            for size in (4, 6, 8, 18):
                await auditor.completed((size - witness.size(origin)) // 2)
                await auditor.sealed(size, "cosignatures")
                assert witness.size(origin) == size
            report = await auditor.verdict(key, [witness.verifier])
            assert (report.found, report.events, report.witnessed) == ([], 18, 18)

            witness.set_ahead(origin, 1000)
            await auditor.completed(1)

            async def contradicted() -> bool:
                return "CONTRADICTION" in str(service.status().details["witnesses"])

            await until_async(contradicted, "it knows more than there is")
