"""Claims of idempotency keys on a real bucket: late writes, and another policy key."""

from collections.abc import AsyncIterator
from time import time

import pytest

from harness.builders.calls import requested_call
from harness.clients.bus_operator import key
from harness.waits import until_async
from toolbus_common.access.principal import principal_of
from toolbus_common.calls.outcome_store import OutcomeStore
from toolbus_common.config import Configuration
from toolbus_common.contracts import (
    CallRequested,
    CallResult,
    OutcomeClaim,
    Stage,
    StoredOutcome,
)
from toolbus_common.errors import BusDownError, IdempotencyConflictError
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.nats.sealed_records import Records
from toolbus_common.nats.topology import OUTCOMES
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_policy.idempotency.claims import IdempotencyClaims
from toolbus_policy.idempotency.quota import OutcomeQuota

OLD, NEW = b"o" * 32, b"n" * 32
DECLARED = Configuration(keys={"bot": key("tbk_bot_secret")})
BOT = principal_of("bot", DECLARED.keys["bot"], DECLARED)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    async with Service("policy", settings).running() as service:
        yield service


async def claims_of(service: Service, *keys: bytes) -> IdempotencyClaims:
    claims = IdempotencyClaims(OutcomeQuota(100, 1 << 20), Records(OUTCOMES, keys), 5.0)
    claims.open(await service.bucket(OUTCOMES), service.spawn)
    return claims


def call(number: int) -> CallRequested:
    return requested_call(
        call_id=f"call-{number}", idempotency_key="order-17", deadline=time() + 60, arguments=b"{}"
    )


async def test_a_late_write_over_a_free_key_is_withdrawn_too(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims, bucket = await claims_of(service, NEW), await service.bucket(OUTCOMES)
    first = await claims.claim(call(1), BOT)
    assert isinstance(first, OutcomeClaim)
    await claims.release(call(1), first)
    swap, get = Bucket.swap, Bucket.get
    queued: list[tuple[str, bytes, int]] = []
    written: list[int | None] = []

    async def lost(bucket: Bucket, name: str, value: bytes, last: int) -> int | None:
        if not last or queued:
            return await swap(bucket, name, value, last)
        queued.append((name, value, last))
        raise BusDownError("no acknowledgement")

    async def before_the_write(bucket: Bucket, name: str) -> Change | None:
        found = await get(bucket, name)
        if queued and not written:
            written.append(await swap(bucket, *queued[0]))
        return found

    monkeypatch.setattr(Bucket, "swap", lost)
    monkeypatch.setattr(Bucket, "get", before_the_write)
    with pytest.raises(BusDownError):
        await claims.claim(call(2), BOT)

    async def withdrawn() -> bool:
        found = await get(bucket, first.name)
        if not written or found is None or found.value is None:
            return False
        record = StoredOutcome.decode(Records(OUTCOMES, [NEW]).open(first.name, found.value))
        return record.call_id == "call-2" and record.stage is Stage.FREE

    await until_async(withdrawn, "the late claim is withdrawn")
    assert written != [None]
    assert isinstance(await claims.claim(call(3), BOT), OutcomeClaim)


async def test_a_redacted_request_is_replayed_after_the_policy_key_was_replaced(
    service: Service,
) -> None:
    before, after = await claims_of(service, OLD), await claims_of(service, NEW, OLD)
    original = b'{"page":7,"card":"4111"}'
    claim = await before.claim(call(1), BOT, original)
    assert isinstance(claim, OutcomeClaim)
    store = OutcomeStore(await service.bucket(OUTCOMES), service.spawn)
    kept = StoredOutcome(
        call_id="call-1",
        digest=claim.digest,
        deadline=call(1).deadline,
        family=call(1).family,
        stage=Stage.ENDED,
        reply=CallResult(b"{}").encode(),
    )
    await store.write(claim, kept)
    again = await after.claim(call(2), BOT, original)
    assert isinstance(again, StoredOutcome)
    assert again.call_id == "call-1"
    with pytest.raises(IdempotencyConflictError):
        await after.claim(call(2), BOT, b'{"page":8}')
