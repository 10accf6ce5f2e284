"""Calls with an idempotency key: each is claimed before it is made, and then never made again."""

from collections.abc import Callable, Coroutine
from typing import Any

from toolbus_common.access.principal import Principal
from toolbus_common.calls.outcome_store import OutcomeStore
from toolbus_common.contracts import CallRequested, OutcomeClaim, Stage, StoredOutcome
from toolbus_common.errors import BusDownError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.sealed_records import Records
from toolbus_policy.idempotency.quota import Allowance
from toolbus_policy.idempotency.replay import digest_of_arguments, entry_of, weighed

ATTEMPTS = 8  # to claim what others claim too


class Once:
    """The bucket of claims and outcomes. Of many who claim the same call the bus lets one."""

    def __init__(self, allowance: Allowance, records: Records, grace: float) -> None:
        self.allowance = allowance
        self._records = records
        self._grace = grace
        self._bucket: Bucket
        self._kept: OutcomeStore

    def open(self, bucket: Bucket, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Where claims are written."""
        self._bucket, self._kept = bucket, OutcomeStore(bucket, spawn)

    async def turn(self, call: CallRequested, principal: Principal) -> OutcomeClaim | StoredOutcome:
        """The claim of a call that may be made now, or the outcome of the one that was.

        Raises:
            IdempotencyConflictError: the key was used with other arguments.
            CallUnderWayError, OutcomeUnknownError: it has not ended, or nobody knows how.
            OutcomeNotKeptError: it ended in more than is kept.
            RateExceededError: too much is kept for this caller already.
            BusDownError: nothing could be claimed, so nothing may be made.
            UnavailableError: what is kept cannot be opened, so nobody knows.

        """
        name, mine = entry_of(call, principal), claimed(call)
        self.allowance.check(name, principal.key)
        over, seal = 0, self._records.key_of(name)
        for _ in range(ATTEMPTS):
            revision = await self._bucket.swap(name, seal.seal(mine.encode()), over)
            if revision is not None:
                return OutcomeClaim(
                    name=name, revision=revision, digest=mine.digest, seal=seal.encode()
                )
            found = await self._bucket.get(name)
            if found is not None and found.value is not None:
                kept = StoredOutcome.decode(self._records.open(name, found.value))
                if kept.stage is not Stage.FREE:
                    return weighed(kept, mine.digest, call, self._grace)
            over = found.revision if found is not None else 0
        raise BusDownError("This idempotency key is being claimed by others all the time; retry.")

    async def release(self, call: CallRequested, claim: OutcomeClaim) -> None:
        """The call was not handed over after all: its key may be used again."""
        free = claimed(call).model_copy(update={"stage": Stage.FREE})
        await self._kept.write(claim, free)


def claimed(call: CallRequested) -> StoredOutcome:
    """What is written before a call is made."""
    return StoredOutcome(
        call_id=call.call_id,
        digest=digest_of_arguments(call.arguments),
        deadline=call.deadline,
        family=call.family,
    )
