"""One store and one set of keys per installation: a replica with others is refused."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import inf
from pathlib import Path
from time import time

import pytest

from harness.audit.events import allowed, bus_of
from harness.services.audit_process import audit_process
from harness.services.ledger_operator import (
    PRICE,
    LedgerOperator,
    empty_valkey,
    running_ledger,
    serving_audit,
)
from harness.waits import until_async
from toolbus_audit.main import build as build_audit
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.contracts import ServiceStatus, SpendingQuery, SpendingReply
from toolbus_common.errors import BusDownError, LedgerRebuildingError, UnknownEntryError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import EVENTS, INSTALLATION
from toolbus_common.privacy.key_store import OTHER_KEY
from toolbus_common.privacy.service_keys import use_person_keys
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.service.shared_keys import SharedKeys, fingerprint, forget_entry
from toolbus_common.settings import Settings
from toolbus_policy.ledger.recovery.unresolved_calls import UnresolvedCallSweeper

KEY, OTHER = b"k" * 32, b"o" * 32


@asynccontextmanager
async def another_audit(settings: Settings, directory: Path) -> AsyncIterator[Service]:
    """Run an audit service with a state directory of its own."""
    audits = AuditSettings(state_dir=directory, nats_url=settings.nats_url, drain_seconds=5.0)
    async with build_audit(ProcessContext(), audits).running() as service:
        yield service


def with_keys_of(settings: Settings, directory: Path) -> Path:
    """Copy everything but the store to another state directory."""
    shutil.copytree(
        settings.state_dir, directory, ignore=shutil.ignore_patterns("clickhouse*", "spool")
    )
    return directory


async def spent(ledger: LedgerOperator) -> int:
    query = SpendingQuery(customer="acme", start=0, end=9e9)
    reply = await ledger.service.requests.request(query, SpendingReply, 15.0)
    return sum(row[7] for row in reply.rows)


async def audits(operator: Bus) -> list[ServiceStatus]:
    """Return the states of the audit services that answer."""
    return await RequestReply(OPERATOR, operator).request_all(wanted=("audit",))


async def test_a_second_audit_service_with_another_store_takes_no_work(
    settings: Settings, valkey_url: str, tmp_path: Path, operator: Bus
) -> None:
    second = settings.model_copy(update={"state_dir": tmp_path / "second"})
    async with serving_audit(settings) as audit, running_ledger(settings, valkey_url) as ledger:
        with_keys_of(settings, second.state_dir)
        with audit_process(second, tmp_path / "second.log"):
            ours = audit.status().details["store_id"]

            async def refused() -> bool:
                return any("a store of its own" in each.reason for each in await audits(operator))

            await until_async(refused, "the second store is refused")
            [reason] = [each.reason for each in await audits(operator) if not each.ready]
            assert ours in reason
            assert "toolbus provision --forget audit.store" in reason
            for _ in range(4):
                await ledger.call()

            async def stored() -> bool:
                return await spent(ledger) == 4 * PRICE

            await until_async(stored, "the first store has every call")
            assert [await spent(ledger) for _ in range(6)] == [4 * PRICE] * 6
            await empty_valkey(valkey_url)
            assert await ledger.rebuilder.rebuild("acme") is not None
            assert (await ledger.standing())[0] == 4 * PRICE


async def test_a_store_without_the_streams_messages_opens_no_budget(
    settings: Settings, valkey_url: str, tmp_path: Path, operator: Bus
) -> None:
    async with running_ledger(settings, valkey_url) as ledger:
        async with serving_audit(settings):
            await ledger.call()
            await ledger.end("ended")

            async def stored() -> bool:
                return await operator.finished(EVENTS, "audit") == inf

            await until_async(stored, "the events are stored")
        await forget_entry(operator, "audit.store")
        directory = with_keys_of(settings, tmp_path / "fresh")
        async with serving_audit(settings.model_copy(update={"state_dir": directory})):
            past = time() - 10
            ended = allowed(call_id="ended", at=past, deadline=past + 5)
            await ledger.service.events.publish_durable(ended)
            async with bus_of("policy", settings) as bus:  # a dead letter of another customer
                await bus.store(Envelope("tb.event.call.allowed.globex", "dead", b"{not json"))
            sweeper = UnresolvedCallSweeper(ledger.service, ledger.ledger, 1.0)
            assert await sweeper.sweep_once() == 0, "the stream has the outcome"
            await empty_valkey(valkey_url)
            with pytest.raises(LedgerRebuildingError, match=r"has 1 of the \d+ messages"):
                await ledger.rebuilder.rebuild("acme")


async def test_an_audit_service_with_another_evidence_key_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    async with serving_audit(settings):
        directory = with_keys_of(settings, tmp_path / "second")
        shutil.rmtree(directory / "evidence")
        async with another_audit(settings, directory) as second:
            status = second.status()
            assert not status.ready
            assert "another 'evidence' key than the installation" in status.reason


@pytest.mark.parametrize(
    ("keys", "works"), [((KEY,), True), ((OTHER,), False), ((OTHER, KEY), True)]
)
async def test_a_replica_needs_the_shared_key_or_has_it_among_earlier_ones(
    settings: Settings, operator: Bus, keys: tuple[bytes, ...], *, works: bool
) -> None:
    first, second = Service("ingress", settings), Service("ingress", settings)
    first.shared_keys.add("client_state", KEY)
    second.shared_keys.add("client_state", *keys)
    async with first.running(), second.running():
        assert first.status().ready
        assert second.status().ready is works
        assert ("another 'client_state' key" in second.status().reason) is not works
    entry = await (await operator.bucket(INSTALLATION)).get("ingress.client_state")
    assert entry is not None
    stored = keys[0] if works else KEY
    assert entry.value == fingerprint("client_state", stored).encode()


async def test_a_replica_waits_at_its_start_while_keys_cannot_be_compared(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare, failures = SharedKeys.refusal, [BusDownError("no leader")]

    async def refusal(keys: SharedKeys, bucket: Bucket, service: str) -> str:
        if failures:
            raise failures.pop()
        return await compare(keys, bucket, service)

    monkeypatch.setattr(SharedKeys, "refusal", refusal)
    service = Service("ingress", settings)
    service.shared_keys.add("client_state", KEY)
    async with service.running():
        assert service.status().ready
    assert not failures


async def test_each_service_with_another_people_key_says_so(
    settings: Settings, tmp_path: Path
) -> None:
    statuses = []
    for name in ("one", "two"):
        own = settings.model_copy(update={"people_key": tmp_path / name})
        service = Service("policy", own)
        people = use_person_keys(service)
        async with service.running():
            with suppress(BusDownError):
                await people.learn(["ann"])
            statuses.append(service.status().details)
    assert statuses == [{}, {"person_keys": OTHER_KEY}]


async def test_a_forgotten_key_can_be_replaced(settings: Settings, operator: Bus) -> None:
    for key in (KEY, OTHER):
        service = Service("ingress", settings)
        service.shared_keys.add("client_state", key)
        async with service.running():
            assert service.status().ready
        await forget_entry(operator, "ingress.client_state")
    with pytest.raises(UnknownEntryError, match="there are: none"):
        await forget_entry(operator, "ingress.client_state")
