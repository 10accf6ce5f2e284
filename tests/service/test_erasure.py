"""Erasure of persons and retention of events, on a real bus and ClickHouse.

The remaining events still verify.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.js.errors import NotFoundError

from harness.audit.events import PATIENCE, allowed, bus_of, completed, events_of
from harness.engines.migrated_tables import migrated
from harness.waits import until_async
from toolbus_audit import retention
from toolbus_audit.main import build
from toolbus_audit.retention import Retention
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.config import Configuration
from toolbus_common.config_store import erasure
from toolbus_common.config_store.literal_secrets import Writer
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import AuditQuery, RowsReply, ServiceStatus, StatusQuery
from toolbus_common.errors import ConflictError, UnknownEntryError
from toolbus_common.evidence import verify
from toolbus_common.evidence.collection import gathered
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats import connection as buses
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, CONFIGURATION, HOLD_PREFIX, PEOPLE
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.privacy.legal_holds import Hold
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings

DAY = 86_400


class Evidence:
    """A running audit, the events of policy and executor, and an operator."""

    def __init__(
        self, settings: Settings, operator: Bus, service: Service, directory: Path
    ) -> None:
        self.settings = settings
        self.service = service
        self.policy: EventPublisher
        self.executor: EventPublisher
        self.repository: ConfigRepository
        self.people = PersonKeys(settings.people_key_file)
        self.requests = RequestReply("operator", operator)
        self._operator = operator
        self._directory = directory

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the configuration repository, and start to publish events."""
        self.people.open(await self._operator.bucket(PEOPLE))
        for name in ("policy", "executor"):
            writer = await stack.enter_async_context(
                events_of(name, self.settings, self._directory / name)
            )
            bus = await stack.enter_async_context(bus_of(name, self.settings))
            writer.people = PersonKeys(self.settings.people_key_file)
            writer.people.open(await bus.bucket(PEOPLE))
            setattr(self, name, writer)
        own = EventPublisher(self._operator.store, Outbox(self._directory / "own.events", 1 << 20))
        own.people = self.people
        stack.push_async_callback(own.close, 5.0)
        config = await self._operator.bucket(CONFIG)
        literals = Writer.at(self.settings.encryption)
        self.repository = ConfigRepository(
            self._operator, config, own, "bo", literals, operator=True
        )

    async def rows(self, sql: str) -> tuple[tuple[Any, ...], ...]:
        """Return the rows of an operator's query."""
        return (await self.requests.request(AuditQuery(sql=sql), RowsReply, 20.0)).rows

    async def call(self, name: str, **given: Any) -> None:
        """Publish the intent and the outcome of a call."""
        await self.policy.publish_durable(allowed(call_id=name, **given))
        customer = {key: value for key, value in given.items() if key == "customer"}
        await self.executor.publish_durable(completed(call_id=name, **customer))

    async def sealed(self, size: int, customer: str = "acme") -> None:
        """Wait until a customer's log has a checkpoint of this size."""

        async def look() -> bool:
            found = await self.rows(
                f"SELECT max(size) FROM checkpoints WHERE customer = '{customer}'"
            )
            return int(found[0][0] or 0) >= size

        await until_async(look, f"{size} events of {customer} are sealed")

    async def stored(self, size: int) -> None:
        """Wait for this size in the log and in the table: the two are written independently."""
        await self.sealed(size)

        async def look() -> bool:
            found = await self.rows("SELECT count() FROM events WHERE customer = 'acme'")
            return int(found[0][0]) >= size

        await until_async(look, f"{size} events are in the table")

    async def has_calls(self, customer: str, count: int) -> bool:
        """Return whether the table has this number of events of a customer's calls."""
        text = f"customer = '{customer}' AND event LIKE 'call.%'"
        return await self.rows(f"SELECT count() FROM events WHERE {text}") == ((count,),)

    async def records_deletion(self, customer: str) -> bool:
        """Return whether a customer's log records a deletion of events."""
        text = f"customer = '{customer}' AND event = 'events.expired'"
        return await self.rows(f"SELECT count() > 0 FROM events WHERE {text}") == ((1,),)

    async def bundle(self, name: str, *, reveal: bool = False) -> verify.Report:
        """Export the evidence, and verify it."""
        path = self._directory / name
        found = await gathered(self.requests, "acme")
        await found.write(path, opened=self.people.opened if reveal else None)
        return self.verified(name)

    def verified(self, name: str) -> verify.Report:
        """Return the verifier's report of a bundle."""
        key = str(self.service.status().details["signed_by"])
        return verify.verify(str(self._directory / name), key)


@pytest.fixture
async def evidence(settings: Settings, operator: Bus, tmp_path: Path) -> AsyncIterator[Evidence]:
    async with running_audit(settings, operator, tmp_path) as found:
        yield found


@asynccontextmanager
async def running_audit(
    settings: Settings, operator: Bus, directory: Path
) -> AsyncIterator[Evidence]:
    own = AuditSettings(
        state_dir=migrated(settings.state_dir),
        nats_url=settings.nats_url,
        drain_seconds=5.0,
        checkpoint_seconds=0.2,
    )
    async with build(ProcessContext(), own).running() as service, AsyncExitStack() as stack:

        async def ready() -> bool:
            return service.status().ready

        await until_async(ready, "audit is ready")
        found = Evidence(settings, operator, service, directory)
        await found.open(stack)
        yield found


async def test_an_erased_person_is_unreadable_and_every_bundle_still_verifies(
    evidence: Evidence, operator: Bus
) -> None:
    await evidence.call("c1", user="ann", arguments='{"to": "carl"}')
    await evidence.call("c2", user="zoe", arguments='{"to": "dave"}')
    await evidence.stored(4)
    request = (
        "SELECT user, JSONExtractString(detail, 'arguments') FROM events "
        "WHERE user = person('ann') AND event = 'call.allowed'"
    )
    assert await evidence.rows(request) == (("ann", '{"to": "carl"}'),)
    before = await evidence.bundle("before.zip", reveal=True)
    assert (before.found, before.encrypted, before.erased) == ([], 4, 0)

    given = (evidence.repository, evidence.requests, evidence.people)
    found = await erasure.found(*given, "ann")
    assert (found.customers, found.plain) == (("acme",), 0)
    confirmed = await erasure.erase(*given, found, "a request")
    assert confirmed == erasure.Confirmed(1, 0)
    assert confirmed.complete

    assert await evidence.rows(request) == ()
    everybody = (
        "SELECT user, JSONExtractString(detail, 'arguments') FROM events "
        "WHERE event = 'call.allowed' ORDER BY call_id"
    )
    assert await evidence.rows(everybody) == (
        (found.person.pseudonym, "(erased)"), ("zoe", '{"to": "dave"}'),
    )  # fmt: skip
    await evidence.sealed(5)
    after = await evidence.bundle("after.zip")
    assert (after.found, after.encrypted, after.erased) == ([], 4, 2)
    assert evidence.verified("before.zip").found == []
    result = await evidence.rows(
        "SELECT JSONExtractString(detail, 'by'), reason, customer FROM events "
        "WHERE event = 'person.erased'"
    )
    assert result == (("operator:bo", "a request", "acme"),)
    later = PersonKeys(evidence.settings.people_key_file)
    later.open(await operator.bucket(PEOPLE))
    await later.learn(["user:ann"])  # the name may be used again, by another person
    assert later.pseudonym("user:ann") != found.person.pseudonym
    with pytest.raises(NotFoundError):
        await operator.client.jetstream().get_msg(f"KV_{PEOPLE}", found.revision)


async def test_a_person_under_a_legal_hold_is_not_erased(evidence: Evidence, operator: Bus) -> None:
    await evidence.call("c1", user="ann")
    await evidence.stored(2)
    bucket = await operator.bucket(CONFIG)
    await bucket.put(f"{HOLD_PREFIX}acme", msgspec.json.encode(Hold("case 17", time.time())))
    given = (evidence.repository, evidence.requests, evidence.people)
    with pytest.raises(ConflictError, match="acme that name user:ann are under a legal hold"):
        await erasure.found(*given, "ann")
    with pytest.raises(UnknownEntryError, match="There is no encryption key for 'user:carl'"):
        await erasure.found(*given, "carl")


async def test_a_hold_that_is_placed_before_the_confirmation_prevents_the_erasure(
    evidence: Evidence, operator: Bus
) -> None:
    await evidence.call("c1", user="ann")
    await evidence.stored(2)
    given = (evidence.repository, evidence.requests, evidence.people)
    found = await erasure.found(*given, "ann")
    bucket = await operator.bucket(CONFIG)
    await bucket.put(f"{HOLD_PREFIX}acme", msgspec.json.encode(Hold("case 17", time.time())))
    with pytest.raises(ConflictError, match="acme that name user:ann are under a legal hold"):
        await erasure.erase(*given, found, "a request")
    assert await evidence.people.find("user:ann") is not None
    assert await evidence.rows("SELECT 1 FROM events WHERE event = 'person.erased'") == ()


async def test_erasure_waits_for_a_busy_service_to_drop_the_key(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buses, "LATE_SECONDS", 0.1)  # the other services do not run
    # The revisions of the bucket in its replies; the last one is repeated.
    rounds = [None, 6, None, 7]
    answering: set[asyncio.Task[None]] = set()

    async with bus_of("audit", settings) as audit:

        def hear(_request: bytes, _subject: str, reply: str) -> None:
            if known := rounds.pop(0) if len(rounds) > 1 else rounds[0]:
                result = ServiceStatus(
                    service="audit",
                    instance="i",
                    pid=1,
                    ready=True,
                    since=0.0,
                    revisions={PEOPLE: known},
                )
                answering.add(asyncio.create_task(audit.publish(reply, result.encode())))

        await audit.subscribe(StatusQuery.SUBJECT, hear)
        await audit.settled()
        requests = RequestReply("operator", operator)
        assert await erasure._let_go(requests, 7, PATIENCE) == erasure.Confirmed(1, 0)
    assert rounds == [7]


class Later:
    """Retention some days from now; `rounds` counts its completed runs."""

    def __init__(self, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = days * DAY
        self._rounds = 0
        apply = Retention.apply

        async def later(policy_: Retention, now: float) -> list[retention.Truncation]:
            cuts = await apply(policy_, now + self.ahead)
            self._rounds += 1
            return cuts

        monkeypatch.setattr(Retention, "apply", later)
        monkeypatch.setattr(retention, "EVERY_SECONDS", 0.2)

    async def come_back(self) -> None:
        """Return to the present, and wait until the current run has ended."""
        self.ahead, rounds = 0, self._rounds

        async def settled() -> bool:
            return self._rounds >= rounds + 2

        await until_async(settled, "nothing is deleted any more")


async def test_expired_events_are_deleted_unless_held_and_the_rest_verifies(
    settings: Settings, operator: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Checkpoints are signed now: half a year later they have expired, with all they cover.
    later = Later(184, monkeypatch)
    bucket = await operator.bucket(CONFIG)
    declared = {"audit": {"retention": "183d"}, "customers": {"core": {"retention": "400d"}}}
    await bucket.put(
        CONFIGURATION, Configuration.model_validate(declared).model_dump_json().encode()
    )
    await bucket.put(f"{HOLD_PREFIX}acme", msgspec.json.encode(Hold("case 17", time.time())))

    async with running_audit(settings, operator, tmp_path) as evidence:
        for customer in ("core", "acme", "bolt"):
            await evidence.call(f"{customer}1", customer=customer)
        for customer in ("core", "acme"):
            await evidence.sealed(2, customer)
            await until_async(
                partial(evidence.has_calls, customer, 2), f"{customer}'s events are rows"
            )
        await until_async(partial(evidence.records_deletion, "bolt"), "bolt's log says so")
        await until_async(partial(evidence.has_calls, "bolt", 0), "bolt's events are deleted")
        assert await evidence.has_calls("acme", 2)
        assert await evidence.has_calls("core", 2)

        await bucket.delete(f"{HOLD_PREFIX}acme")
        await until_async(partial(evidence.records_deletion, "acme"), "acme's log says so")
        await until_async(partial(evidence.has_calls, "acme", 0), "acme's events are deleted")
        assert await evidence.has_calls("core", 2)

        await later.come_back()
        await evidence.call("acme2")
        ((cut,),) = await evidence.rows(
            "SELECT max(size) FROM log_truncations WHERE customer = 'acme'"
        )
        await evidence.sealed(int(cut) + 2)
        await until_async(partial(evidence.has_calls, "acme", 2), "the later events are rows")
        report = await evidence.bundle("rest.zip")
    assert report.found == []
    assert report.before >= 2
    assert report.events >= 2
