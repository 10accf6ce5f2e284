"""Audit as a whole: events are exported by command, to targets, and to sinks."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pyarrow import parquet

from harness.audit.events import allowed, events_of
from harness.audit.exports import files, lines
from harness.audit.ocsf import faults
from harness.engines.migrated_tables import migrated
from harness.receivers.webhook_receiver import Receiver
from harness.waits import until
from toolbus_audit.main import build
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_cli.evidence.export import LATEST, Wanted, take
from toolbus_common.config import Configuration
from toolbus_common.config_store.confirmation import confirm
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, CONFIGURATION
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings

EIGHT = 1_763_712_000.0  # on the 21st of November 2025


@pytest.fixture
async def audit(settings: Settings) -> AsyncIterator[Service]:
    own = AuditSettings(
        state_dir=migrated(settings.state_dir), nats_url=settings.nats_url, drain_seconds=5.0,
        egress_allow="127.0.0.0/8",
    )  # fmt: skip
    async with build(ProcessContext(), own).running() as service:
        await until(lambda: service.status().ready, "audit is ready")
        yield service


async def test_files_exported_by_command_contain_every_event(
    audit: Service, operator: Bus, settings: Settings, tmp_path: Path
) -> None:
    async with events_of("policy", settings, tmp_path) as policy:
        events = [allowed(call_id=f"c{each}", at=EIGHT + each) for each in range(30)]
        await asyncio.gather(*map(policy.publish_durable, events))
    await until(lambda: audit.status().details["rows"] == 30, "thirty rows")
    requests = RequestReply("operator", operator)
    items: list[tuple[int, int]] = []
    for form in ("jsonl", "ocsf", "parquet"):
        selection = Wanted(form, 0.0, LATEST, ("call.*",), ())
        out = tmp_path / form
        rows = await take(requests, selection, out, lambda rows, total: items.append((rows, total)))
        assert rows == 30
    ids = [event.id for event in events]
    plain = [json.loads(line) for line in (tmp_path / "jsonl").read_text().splitlines()]
    assert [each["id"] for each in plain] == ids
    shaped = [json.loads(line) for line in (tmp_path / "ocsf").read_text().splitlines()]
    assert [each["metadata"]["uid"] for each in shaped] == ids
    assert faults(shaped[0]) == []
    assert parquet.read_table(tmp_path / "parquet").column("id").to_pylist() == ids
    assert (30, 30) in items
    nothing = Wanted("parquet", 0.0, 1.0, (), ())
    assert await take(requests, nothing, tmp_path / "nothing", lambda *_: None) == 0
    assert parquet.read_table(tmp_path / "nothing").num_rows == 0


async def test_configured_exports_and_sinks_deliver_and_are_in_the_status(
    audit: Service, operator: Bus, settings: Settings, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    with Receiver() as receiver:
        configuration = Configuration.model_validate(
            {
                "exports": {"lake": {"to": str(lake), "every": "1s"}},
                "sinks": {"siem": {"url": receiver.url, "begin": "oldest"}},
            }
        )
        config = await operator.bucket(CONFIG)
        await confirm(config, configuration)
        await config.put(CONFIGURATION, configuration.model_dump_json().encode())
        async with events_of("policy", settings, tmp_path) as policy:
            await policy.publish_durable(allowed(call_id="c1"))
        await until(lambda: len(lines(files(lake))) == 1, "the file")
        await until(lambda: receiver.received, "the sink")
        await until(lambda: is_reported(audit), "both in the status")
    assert [each["id"] for each in lines(files(lake))] == ["c1.allowed"]


def is_reported(audit: Service) -> bool:
    """Return whether the status reports both deliveries."""
    details = audit.status().details
    result = str(details["sinks"].get("siem", ""))
    return details["exports"] == {"lake": "1 written"} and result.startswith(
        "1 delivered, 0 behind"
    )
