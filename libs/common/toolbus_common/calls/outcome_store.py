"""Storage of the outcomes of calls with an idempotency key, before the reply is sent."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from toolbus_common.contracts import (
    CallAdmitted,
    CallError,
    FinalReply,
    InputRequired,
    OutcomeClaim,
    Stage,
    StoredOutcome,
)
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.sealed_records import RecordKey

log = logging.getLogger(__name__)

LARGEST_STORED = 256 << 10  # bytes of a result
AWAITED_SECONDS = 3.0  # limit for storing; the caller then receives its reply in any case
RETRY_SECONDS = 0.5
ATTEMPTS = 60
MAX_QUEUED = 256  # outcomes queued for retry

ReturnedResult = FinalReply | CallError


class OutcomeStore:
    """Store of the outcomes of calls that claimed an idempotency key.

    Writes are retried while NATS is unavailable. If no outcome is written by the call's deadline,
    the outcome is unknown. The call is never executed again.
    """

    def __init__(self, bucket: Bucket, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._bucket = bucket
        self._spawn = spawn
        self._late = 0
        self._extended: dict[str, asyncio.Task[int]] = {}  # revisions of extended claims

    async def end(
        self, call: CallAdmitted, claim: OutcomeClaim, result: ReturnedResult, *, sent: bool = True
    ) -> None:
        """Store the final reply before it is sent to the caller.

        If the call was not sent or needs input, release the idempotency key instead.
        """
        extended = self._extended.pop(claim.name, None)
        if extended is not None:
            claim = claim.model_copy(update={"revision": await extended})
        await self.write(claim, ended(call, claim, result, sent=sent))

    def extend(self, call: CallAdmitted, claim: OutcomeClaim, deadline: float) -> None:
        """Store a later deadline in the claim, in the background. `end` waits for this write."""
        if claim.seal:
            before = self._extended.get(claim.name)
            later = self._extend(call, claim, deadline, before)
            self._extended[claim.name] = asyncio.get_running_loop().create_task(later)

    async def _extend(
        self,
        call: CallAdmitted,
        claim: OutcomeClaim,
        deadline: float,
        before: asyncio.Task[int] | None,
    ) -> int:
        """Store a later deadline.

        Return the revision of the claim that the outcome must replace.
        """
        revision = claim.revision if before is None else await before
        outcome = StoredOutcome(
            call_id=call.call_id, digest=claim.digest, deadline=deadline, family=call.family
        )
        sealed = RecordKey.decode(claim.seal).seal(outcome.encode())
        try:
            async with asyncio.timeout(AWAITED_SECONDS):
                return await self._bucket.swap(claim.name, sealed, revision) or revision
        except (ToolbusError, TimeoutError) as error:
            # If the write succeeded in spite of the error, the outcome cannot be stored. A repeated
            # call is then rejected as unknown, and never executed again.
            log.warning(
                "outcome.not_extended", extra={"call_id": call.call_id, "reason": str(error)}
            )
            return revision

    async def write(self, claim: OutcomeClaim, outcome: StoredOutcome) -> None:
        """Replace a claim with the outcome. Return when it is written or queued for retry."""
        if await self._written(claim, outcome) or self._late >= MAX_QUEUED:
            return
        self._late += 1
        self._spawn(self._write_later(claim, outcome))

    async def _written(self, claim: OutcomeClaim, outcome: StoredOutcome) -> bool:
        if not claim.seal:
            log.warning("outcome.not_encrypted", extra={"call_id": outcome.call_id})
            return True
        sealed = RecordKey.decode(claim.seal).seal(outcome.encode())
        try:
            async with asyncio.timeout(AWAITED_SECONDS):
                revision = await self._bucket.swap(claim.name, sealed, claim.revision)
        except (ToolbusError, TimeoutError) as error:
            log.warning(
                "outcome.not_stored", extra={"call_id": outcome.call_id, "reason": str(error)}
            )
            return False
        if revision is None:
            # An earlier attempt was written although it reported an error, or the claim has
            # expired.
            log.info("outcome.already_stored", extra={"call_id": outcome.call_id})
        return True

    async def _write_later(self, claim: OutcomeClaim, outcome: StoredOutcome) -> None:
        try:
            for _ in range(ATTEMPTS):
                await asyncio.sleep(RETRY_SECONDS)
                if await self._written(claim, outcome):
                    return
        finally:
            self._late -= 1


def ended(
    call: CallAdmitted, claim: OutcomeClaim, result: ReturnedResult, *, sent: bool
) -> StoredOutcome:
    """Return the outcome to store.

    If the call was not sent or needs input, the outcome releases the key and contains no reply.
    """
    stage, reply = Stage.ENDED, result.encode()
    if isinstance(result, InputRequired) or not sent:
        stage, reply = Stage.FREE, b""
    elif len(reply) > LARGEST_STORED:
        stage, reply = Stage.TOO_LARGE, b""
    return StoredOutcome(
        call_id=call.call_id,
        digest=claim.digest,
        deadline=call.deadline,
        family=call.family,
        stage=stage,
        reply=reply,
    )
