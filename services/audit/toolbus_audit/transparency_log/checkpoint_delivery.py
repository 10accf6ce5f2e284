"""Deliver the latest checkpoint of each customer's log to a receiver, with retries."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from toolbus_audit.clickhouse.errors import StoreDownError
from toolbus_audit.transparency_log.log_signer import Log
from toolbus_common.errors import BusDownError

log = logging.getLogger(__name__)

FIRST_RETRY, LONGEST_RETRY = 1.0, 300.0
MAX_CONCURRENT = 16  # requests of one kind, because each customer has a task

Recipient = tuple[str, str]  # a receiver and a customer
Deliver = Callable[[Recipient, Log], Awaitable[float]]


class NotAcceptedError(Exception):
    """The receiver did not accept a checkpoint; the message says why. Delivery is retried."""


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
        """Queue a checkpoint, unless a larger one is queued, without waiting for delivery."""
        waiting = self._pending.get(recipient)
        if waiting and waiting.stream == checkpoint.stream and waiting.size > checkpoint.size:
            return
        self._pending[recipient] = checkpoint
        task = self._tasks.get(recipient)
        if task is None or task.done():
            self._tasks[recipient] = asyncio.get_running_loop().create_task(self._work(recipient))

    async def close(self) -> None:
        """Stop; checkpoints not delivered are offered again after the next start."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _work(self, recipient: Recipient) -> None:
        delay = self._first_retry
        while recipient in self._pending:
            checkpoint = self._pending[recipient]
            try:
                rest = await self._deliver(recipient, checkpoint)
            except (NotAcceptedError, BusDownError, StoreDownError) as error:
                self._record_failure(recipient, str(error))
            except Exception as error:
                log.exception("checkpoint.internal_error", extra={"receiver": recipient[0]})
                self._record_failure(
                    recipient, f"an error inside audit ({type(error).__name__}); see its log"
                )
            else:
                self.problems.pop(recipient, None)
                delay = self._first_retry
                if self._pending[recipient] is checkpoint:
                    del self._pending[recipient]
                await asyncio.sleep(rest)
                continue
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            delay = min(delay * 2, LONGEST_RETRY)

    def _record_failure(self, recipient: Recipient, reason: str) -> None:
        self.problems[recipient] = reason
        fields = {
            "kind": self._kind,
            "receiver": recipient[0],
            "customer": recipient[1],
            "reason": reason,
        }
        log.warning("checkpoint.not_delivered", extra=fields)
