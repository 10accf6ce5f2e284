"""Deliver the latest checkpoint of each customer's log to a receiver, with retries."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from tenacity import RetryCallState

from toolbus_audit.clickhouse.errors import StoreDownError
from toolbus_audit.transparency_log.log_signer import Log
from toolbus_common.errors import BusDownError
from toolbus_common.retries import Backoff, error_of, retrying

log = logging.getLogger(__name__)

FIRST_RETRY, LONGEST_RETRY = 1.0, 300.0
MAX_CONCURRENT = 16  # requests of one kind, because each customer has a task

Recipient = tuple[str, str]  # a receiver and a customer
Deliver = Callable[[Recipient, Log], Awaitable[float]]


class NotAcceptedError(Exception):
    """The receiver did not accept a checkpoint. Delivery is retried; the message is the reason."""


class LatestCheckpoints:
    """Delivery of the latest checkpoint per recipient, retried until `deliver` returns.

    `deliver` returns how many seconds to pause before the recipient's next checkpoint. A receiver
    that is down delays neither other receivers nor signing.
    """

    def __init__(self, kind: str, deliver: Deliver, first_retry: float = FIRST_RETRY) -> None:
        self._kind = kind
        self._deliver = deliver
        self._first_retry = first_retry
        self._pending: dict[Recipient, Log] = {}
        self._tasks: dict[Recipient, asyncio.Task[None]] = {}
        self.slots = asyncio.Semaphore(MAX_CONCURRENT)  # entered by `deliver` for each request
        self.problems: dict[Recipient, str] = {}  # why delivery fails

    def offer(self, recipient: Recipient, checkpoint: Log) -> None:
        """Queue a checkpoint without waiting for delivery, unless a larger checkpoint is queued."""
        waiting = self._pending.get(recipient)
        if waiting and waiting.stream == checkpoint.stream and waiting.size > checkpoint.size:
            return
        self._pending[recipient] = checkpoint
        task = self._tasks.get(recipient)
        if task is None or task.done():
            self._tasks[recipient] = asyncio.get_running_loop().create_task(self._work(recipient))

    async def close(self) -> None:
        """Stop. Checkpoints that are not delivered are offered again after the next start."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _work(self, recipient: Recipient) -> None:
        while recipient in self._pending:
            backoff = Backoff(self._first_retry, LONGEST_RETRY)
            retry = retrying(backoff, Exception, failed=partial(self._record_failure, recipient))
            rest: float = await retry(self._deliver_latest, recipient)
            self.problems.pop(recipient, None)
            await asyncio.sleep(rest)

    async def _deliver_latest(self, recipient: Recipient) -> float:
        checkpoint = self._pending[recipient]
        rest = await self._deliver(recipient, checkpoint)
        if self._pending[recipient] is checkpoint:
            del self._pending[recipient]
        return rest

    def _record_failure(self, recipient: Recipient, state: RetryCallState) -> None:
        error = error_of(state)
        reason = str(error)
        if not isinstance(error, NotAcceptedError | BusDownError | StoreDownError):
            reason = f"an error inside audit ({type(error).__name__}); see its log"
            log.error("checkpoint.internal_error", extra={"receiver": recipient[0]}, exc_info=error)
        self.problems[recipient] = reason
        fields = {
            "kind": self._kind,
            "receiver": recipient[0],
            "customer": recipient[1],
            "reason": reason,
        }
        log.warning("checkpoint.not_delivered", extra=fields)
