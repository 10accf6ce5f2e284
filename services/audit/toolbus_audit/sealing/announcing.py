"""Tells declared webhooks of statements: of each customer's log the newest, at least once.

One that was not taken yet is passed over for a newer one, which says all that it said. How far each
webhook has been told is kept in the bucket, so that a restart neither forgets nor begins anew.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from time import time

import msgspec

from toolbus_audit.posting import PostError
from toolbus_audit.sealing.sealer import Log
from toolbus_audit.signing import NoSecretError, body_of, headers_of, key_of
from toolbus_common.bucket import Bucket
from toolbus_common.declared import Webhook
from toolbus_common.declared.rules import CHECKPOINT
from toolbus_common.errors import BusDownError
from toolbus_common.secrets import SecretError, Secrets, filled

log = logging.getLogger(__name__)

TOLD = "told."  # begins entries of the bucket that say what a webhook was told last
FIRST_RETRY, SLOWEST_RETRY = 1.0, 300.0
MOST_THREADS = 16

Post = Callable[[Webhook, bytes, Mapping[str, str]], None]
Line = tuple[str, str]  # a webhook and a customer


class Announcing:
    """`declared` gives the webhooks as they are now, by name."""

    def __init__(
        self,
        declared: Callable[[], Mapping[str, Webhook]],
        send: Post,
        secrets: Secrets,
        bucket: Bucket,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self._declared = declared
        self._send = send
        self._bucket = bucket
        self._secrets = secrets
        self._first_retry = first_retry
        self._threads = ThreadPoolExecutor(MOST_THREADS, "checkpoint")
        self._newest: dict[Line, Log] = {}
        self._telling: dict[Line, asyncio.Task[None]] = {}

    def tell(self, signed: list[tuple[str, Log]]) -> None:
        """Take statements; return at once."""
        for scope, each in signed:
            for name, hook in self._declared().items():
                if hook.wants(CHECKPOINT, scope):
                    self._begin((name, scope), each)

    async def close(self) -> None:
        """Stop; what was not told is told after the next start."""
        for task in self._telling.values():
            task.cancel()
        await asyncio.gather(*self._telling.values(), return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self, line: Line, newest: Log) -> None:
        self._newest[line] = newest
        task = self._telling.get(line)
        if task is None or task.done():
            self._telling[line] = asyncio.get_running_loop().create_task(self._work(line))

    async def _work(self, line: Line) -> None:
        while line in self._newest:
            try:
                await self._deliver(line)
            except BusDownError as error:
                log.warning("checkpoint.waiting", extra={"reason": str(error)})
                await asyncio.sleep(self._first_retry)

    async def _deliver(self, line: Line) -> None:
        """Try until the newest is told, or nobody wants it any more."""
        name, scope = line
        entry = f"{TOLD}{name}.{scope}"
        before = await self._bucket.get(entry)
        delay = self._first_retry
        while (hook := self._declared().get(name)) is not None and hook.wants(CHECKPOINT, scope):
            newest = self._newest[line]
            mark = sha256(newest.note.encode()).hexdigest()
            if before is not None and before.value == mark.encode():
                break
            try:
                key = key_of(filled(hook.secret, await self._secrets.read([hook.secret])))
                post = partial(self._post, hook, key, scope, newest, mark)
                await asyncio.get_running_loop().run_in_executor(self._threads, post)
            except (PostError, NoSecretError, SecretError) as error:
                log.warning("webhook.failed", extra={"webhook": name, "reason": str(error)})
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
                delay = min(delay * 2, SLOWEST_RETRY)
                continue
            await self._bucket.put(entry, mark.encode())
            if self._newest[line] is newest:
                break
            return  # a newer one came meanwhile
        self._newest.pop(line, None)

    def _post(self, hook: Webhook, key: bytes, scope: str, signed: Log, mark: str) -> None:
        told = msgspec.to_builtins(signed)
        body = body_of({"fact": CHECKPOINT, "at": signed.at, "scope": scope, **told})
        self._send(hook, body, headers_of(key, mark[:32], int(time()), body))
