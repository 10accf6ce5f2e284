"""Exports and sinks of an audit process that is killed while it writes."""

import json
from pathlib import Path

from harness.audit.events import allowed, events_of, returns_soon
from harness.audit.exports import files, lines, manifests
from harness.receivers.webhook_receiver import Receiver
from harness.services.audit_process import AUDIT, audit_process
from harness.waits import until
from toolbus_common.config import Configuration
from toolbus_common.config_store.confirmation import confirm
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, CONFIGURATION
from toolbus_common.settings import Settings

# The process kills itself when the second file of an export exists and no manifest names it yet.
DIES = (
    """
import os, signal
from toolbus_audit.export.targets import DirectoryTarget
whole, written = DirectoryTarget._write, []
def write(self, path, data):
    whole(self, path, data)
    written.append(path)
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
DirectoryTarget._write = write
"""
    + AUDIT
)


async def test_after_a_kill_every_event_is_in_one_file_and_delivered(
    settings: Settings, operator: Bus, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    await returns_soon(operator)
    with Receiver() as receiver:
        sections = {
            "exports": {"lake": {"to": str(lake), "every": "1s"}},
            "sinks": {"siem": {"url": receiver.url, "begin": "oldest"}},
        }
        configuration = Configuration.model_validate(sections)
        config = await operator.bucket(CONFIG)
        await confirm(config, configuration)
        await config.put(CONFIGURATION, configuration.model_dump_json().encode())
        async with events_of("policy", settings, tmp_path) as policy:
            events = [allowed(customer=f"c{number % 3}") for number in range(60)]
            for event in events:
                await policy.publish_durable(event)
        ids = sorted(event.id for event in events)
        with audit_process(settings, tmp_path / "log", DIES, LEASE_SECONDS="1") as dying:
            await until(lambda: dying.poll() is not None, "its death")
            assert dying.returncode == -9
        with audit_process(settings, tmp_path / "log", LEASE_SECONDS="1"):
            await until(lambda: len(lines(files(lake))) >= len(ids), "every event in a file")
            await until(lambda: set(_delivered(receiver)) == set(ids), "every event told")
        found = files(lake)
    assert sorted(each["id"] for each in lines(found)) == ids
    named = {file["path"] for each in manifests(found) for file in each["files"]}
    assert {path for path in found if not path.startswith("_manifests/")} == named


def _delivered(receiver: Receiver) -> list[str]:
    return [json.loads(line)["id"] for each in receiver.received for line in each.body.splitlines()]
