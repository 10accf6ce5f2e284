"""Claim the idempotency key of a call before the call is made, so that it runs only once."""

import asyncio
import hmac
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Any

from toolbus_common.access.principal import Principal
from toolbus_common.calls.outcome_store import OutcomeStore
from toolbus_common.contracts import CallRequested, OutcomeClaim, Stage, StoredOutcome
from toolbus_common.errors import BusDownError, ToolbusError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.sealed_records import RecordKey, Records
from toolbus_policy.idempotency.quota import OutcomeQuota
from toolbus_policy.idempotency.replay import check_outcome, digest_of_arguments, entry_name_of

ATTEMPTS = 8  # while concurrent claims conflict
WITHDRAWAL_SECONDS = 0.5
WITHDRAWALS = 60  # attempts to withdraw a claim whose write was not acknowledged
MAX_WITHDRAWN = 256  # claims that are withdrawn at the same time


class IdempotencyClaims:
    """Claims and outcomes in a bucket, which accepts only one of several concurrent claims."""

    def __init__(self, quota: OutcomeQuota, records: Records, grace: float) -> None:
        self.quota = quota
        self._records = records
        self._grace = grace
        self._bucket: Bucket
        self._outcomes: OutcomeStore
        self._spawn: Callable[[Coroutine[Any, Any, None]], None]
        self._withdrawn = 0

    def open(self, bucket: Bucket, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Set the bucket in which claims are stored."""
        self._bucket, self._outcomes, self._spawn = bucket, OutcomeStore(bucket, spawn), spawn

    async def claim(
        self, call: CallRequested, principal: Principal, original: bytes = b""
    ) -> OutcomeClaim | StoredOutcome:
        """Return the claim of a call to make now, or the outcome of the first call with the key.

        `original` are the arguments before their redaction, if they were redacted: placeholders
        differ from run to run, and the guards can change between two equal requests.

        Raises:
            IdempotencyConflictError: the key was used with other arguments.
            CallInProgressError: the first call has not ended.
            OutcomeUnknownError: the outcome of the first call is missing.
            OutcomeNotStoredError: the outcome of the first call was too large to store.
            RateExceededError: the caller has reached its limit of stored outcomes.
            BusDownError: the claim could not be written, so the call must not be made.
            UnavailableError: the stored record cannot be decrypted.

        """
        name, mine = entry_name_of(call, principal), new_claim(call)
        self.quota.check(name, principal.key)
        revision_before, seal = 0, self._records.key_of(name)
        if original:
            digest = _keyed(seal.key, digest_of_arguments(original))
            mine = mine.model_copy(update={"digest": digest})
        for _ in range(ATTEMPTS):
            try:
                revision = await self._bucket.swap(name, seal.seal(mine.encode()), revision_before)
            except BusDownError:
                if self._withdrawn < MAX_WITHDRAWN:
                    self._spawn(self._withdraw(name, mine, seal, revision_before))
                raise
            if revision is not None:
                return OutcomeClaim(
                    name=name, revision=revision, digest=mine.digest, seal=seal.encode()
                )
            found = await self._bucket.get(name)
            if found is not None and found.value is not None:
                stored = StoredOutcome.decode(self._records.open(name, found.value))
                if stored.stage is not Stage.FREE:
                    digest = mine.digest
                    keys = [each.key for each in self._records.keys_of(name)]
                    if stored.digest in _equal_digests(keys, call.arguments, original):
                        digest = stored.digest
                    return check_outcome(stored, digest, call, self._grace)
            revision_before = found.revision if found is not None else 0
        raise BusDownError("Concurrent calls keep claiming this idempotency key; retry.")

    async def _withdraw(self, name: str, mine: StoredOutcome, seal: RecordKey, before: int) -> None:
        """Release a claim if it was written although the write was not acknowledged.

        The call was not made. An unreleased claim would block the idempotency key until the
        deadline.
        """
        self._withdrawn += 1
        try:
            for _ in range(WITHDRAWALS):
                await asyncio.sleep(WITHDRAWAL_SECONDS)
                try:
                    found = await self._bucket.get(name)
                except ToolbusError:
                    continue
                if found is None or found.value is None or found.revision <= before:
                    continue  # NATS may still have the write in a queue
                if StoredOutcome.decode(self._records.open(name, found.value)) == mine:
                    claim = OutcomeClaim(
                        name=name, revision=found.revision, digest=mine.digest, seal=seal.encode()
                    )
                    free = mine.model_copy(update={"stage": Stage.FREE})
                    await self._outcomes.write(claim, free)
                return
        finally:
            self._withdrawn -= 1

    async def release(self, call: CallRequested, claim: OutcomeClaim) -> None:
        """Release the claim of a call that was not dispatched. The key can be used again."""
        free = new_claim(call).model_copy(update={"stage": Stage.FREE})
        await self._outcomes.write(claim, free)


def _equal_digests(keys: list[bytes], arguments: bytes, original: bytes) -> set[str]:
    """Return each digest that an equal request may have stored.

    The stored digest depends on the guards, the run, and the key at that time.
    """
    sent = digest_of_arguments(arguments)
    first = digest_of_arguments(original) if original else sent
    return {sent, first, *(_keyed(key, first) for key in keys)}


def _keyed(key: bytes, digest: str) -> str:
    """Return a keyed digest, from which a reader cannot guess the redacted values."""
    return hmac.digest(key, b"arguments " + digest.encode(), sha256).hex()


def new_claim(call: CallRequested) -> StoredOutcome:
    """Return the record that is written before a call is made."""
    return StoredOutcome(
        call_id=call.call_id,
        digest=digest_of_arguments(call.arguments),
        deadline=call.deadline,
        family=call.family,
    )
