"""Checkpoints sent to a witness over HTTP, and written into a directory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.audit.witness import Witness
from harness.audit.witnessed_audit import Auditor, auditing, declare
from harness.waits import until_async
from toolbus_common.nats.connection import Bus
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings


@pytest.fixture
def auditor(settings: Settings, operator: Bus, tmp_path: Path) -> Auditor:
    return Auditor(settings, operator, tmp_path)


@asynccontextmanager
async def witnessed(auditor: Auditor, witness: Witness, url: str) -> AsyncIterator[Service]:
    """Run an audit with a witness, which knows acme's log once it has two events."""
    fields = {"name": "w1", "url": url, "key": witness.verifier}
    await declare(auditor.operator, origin="toolbus.example/eu", witnesses=[fields])
    async with auditing(auditor.settings) as service:
        await auditor.completed(1)
        await auditor.sealed(2)
        origin = await auditor.origin()
        assert origin.startswith("toolbus.example/eu/acme/")

        async def unknown() -> bool:
            message = str(service.status().details["witnesses"]["w1"])
            return f"it does not know the log {origin}" in message

        await until_async(unknown, "status says that the witness does not know the log")
        witness.logs[origin] = str(service.status().details["signed_by"])
        yield service


async def test_a_log_is_cosigned_and_its_bundle_proves_it(auditor: Auditor) -> None:
    witness = Witness()
    with witness.listening() as url:
        async with witnessed(auditor, witness, url) as service:
            await auditor.sealed(2, "cosignatures")
            await auditor.completed(3)
            await auditor.sealed(8, "cosignatures")
            key = str(service.status().details["signed_by"])
            report = await auditor.verdict(key, [witness.verifier])
    assert report.found == []
    assert (report.events, report.witnessed) == (8, 8)
    assert report.log is not None
    assert (report.log.installation, report.log.customer) == ("toolbus.example/eu", "acme")
    assert any(old > 0 and status == 200 for old, status in witness.requests)
    assert ["--seen" in each for each in report.unproven] == [True]


async def test_an_unavailable_witness_delays_nothing_and_catches_up(auditor: Auditor) -> None:
    witness = Witness()
    with witness.listening() as url:
        async with witnessed(auditor, witness, url) as service:
            await auditor.sealed(2, "cosignatures")
            witness.broken = 503
            await auditor.completed(4)
            await auditor.sealed(10)

            async def behind() -> bool:
                message = str(service.status().details["witnesses"]["w1"])
                return "8 events behind" in message and "it returned status 503" in message

            await until_async(behind, "status says how far behind it is")
        async with auditing(auditor.settings):  # its backlog is known after a restart
            witness.broken = 0
            await auditor.sealed(10, "cosignatures")
    assert (2, 200) in witness.requests


async def test_a_witness_that_was_reset_or_whose_answer_was_lost_is_sent_the_log_again(
    auditor: Auditor,
) -> None:
    witness = Witness()
    with witness.listening() as url:
        async with witnessed(auditor, witness, url):
            await auditor.sealed(2, "cosignatures")
            witness.trees.clear()
            await auditor.completed(1)
            await auditor.sealed(4, "cosignatures")
            (origin, before), *_ = witness.trees.items()
            await auditor.completed(1)
            await auditor.sealed(6, "cosignatures")
            witness.trees[origin] = before  # reset to a size that was signed
            await auditor.completed(1)
            await auditor.sealed(8, "cosignatures")
    assert {(2, 409), (0, 200), (6, 409), (4, 200)} <= set(witness.requests)


async def test_a_witness_with_a_larger_log_raises_the_alarm_once(
    auditor: Auditor,
) -> None:
    witness = Witness()
    with witness.listening() as url:
        async with witnessed(auditor, witness, url) as service:
            await auditor.sealed(2, "cosignatures")
            (origin,) = witness.trees
            witness.trees[origin] = 1000, b"x" * 32
            await auditor.completed(1)
            alarms = "SELECT count() FROM events WHERE event = 'witness.contradicted'"

            async def alarmed() -> bool:
                message = str(service.status().details["witnesses"]["w1"])
                return (await auditor.rows(alarms))[0][0] == 1 and "CONTRADICTION" in message

            await until_async(alarmed, "the event is in the log and status says it")
            attempts = len(witness.requests)

            async def again() -> bool:
                return len(witness.requests) > attempts + 2

            await until_async(again, "it is asked again")
            assert (await auditor.rows(alarms))[0][0] == 1


async def test_an_answer_signed_with_another_key_is_rejected(auditor: Auditor) -> None:
    witness = Witness()
    with witness.listening() as url:
        fields = {"name": "w1", "url": url, "key": Witness().verifier}
        await declare(auditor.operator, witnesses=[fields])
        async with auditing(auditor.settings) as service:
            await auditor.completed(1)
            await auditor.sealed(2)
            witness.logs[await auditor.origin()] = str(service.status().details["signed_by"])

            async def refused() -> bool:
                message = str(service.status().details["witnesses"]["w1"])
                return "does not match the key configured" in message

            await until_async(refused, "status says so")
            assert (await auditor.rows("SELECT count() FROM cosignatures"))[0][0] == 0


async def test_checkpoints_in_a_directory_show_that_the_newest_events_were_dropped(
    auditor: Auditor, tmp_path: Path
) -> None:
    directory = tmp_path / "kept"
    directory.mkdir()
    await declare(auditor.operator, checkpoints={"to": str(directory), "every": "1s"})
    async with auditing(auditor.settings) as service:
        await auditor.completed(1)
        await auditor.sealed(2)
        await auditor.completed(2)
        await auditor.sealed(6)

        async def written() -> bool:
            return bool(list(directory.glob("acme/*/*006-*.note")))

        await until_async(written, "the newest checkpoint is in the directory")
        key = str(service.status().details["signed_by"])
        assert (await auditor.verdict(key, seen=[directory])).found == []
        report = await auditor.verdict(key, only=2)
        assert (report.found, report.events) == ([], 2)  # without the directory it cannot know
        report = await auditor.verdict(key, seen=[directory], only=2)
    assert {kind for kind, _ in report.found} == {"missing"}


async def test_the_origin_of_an_installation_is_created_once(
    auditor: Auditor,
) -> None:
    async with auditing(auditor.settings) as service:
        first = service.status().details
    await declare(auditor.operator, origin="another.example")
    async with auditing(auditor.settings) as service:
        second = service.status().details
    assert str(first["origin"]).startswith("toolbus-")
    assert (first["origin"], first["signed_by"]) == (second["origin"], second["signed_by"])
