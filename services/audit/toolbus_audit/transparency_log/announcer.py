"""Tells declared webhooks of statements: of each customer's log the newest, at least once.

One that was not taken yet is passed over for a newer one, which says all that it said. How far each
webhook has been told is kept in the bucket, so that a restart neither forgets nor begins anew.
"""

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from time import time

import msgspec

from toolbus_audit.delivery.http_client import PostError
from toolbus_audit.transparency_log.checkpoint_delivery import (
    FIRST_RETRY,
    Line,
    Newest,
    NotTakenError,
)
from toolbus_audit.transparency_log.sealer import Log
from toolbus_audit.webhooks.signing import NoSecretError, body_of, headers_of, key_of
from toolbus_common.config import Webhook
from toolbus_common.config.access.rules import CHECKPOINT
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.secrets import SecretError, Secrets, filled

TOLD = "told."  # begins entries of the bucket that say what a webhook was told last

Post = Callable[[Webhook, bytes, Mapping[str, str]], None]


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
        self._newest = Newest("webhook", self._deliver, first_retry)

    def tell(self, signed: list[tuple[str, Log]]) -> None:
        """Take statements; return at once."""
        for customer, each in signed:
            for name, hook in self._declared().items():
                if hook.wants(CHECKPOINT, customer):
                    self._newest.offer((name, customer), each)

    async def close(self) -> None:
        """Stop; what was not told is told after the next start."""
        await self._newest.close()

    async def _deliver(self, line: Line, newest: Log) -> float:
        name, customer = line
        hook = self._declared().get(name)
        if hook is None or not hook.wants(CHECKPOINT, customer):
            return 0.0
        entry, mark = f"{TOLD}{name}.{customer}", sha256(newest.note.encode()).hexdigest()
        before = await self._bucket.get(entry)
        if before is None or before.value != mark.encode():
            try:
                key = key_of(filled(hook.secret, await self._secrets.read([hook.secret])))
                post = partial(self._post, hook, key, customer, newest, mark)
                await self._newest.in_thread(post)
            except (PostError, NoSecretError, SecretError) as error:
                raise NotTakenError(str(error)) from error
            await self._bucket.put(entry, mark.encode())
        return 0.0

    def _post(self, hook: Webhook, key: bytes, customer: str, signed: Log, mark: str) -> None:
        told = msgspec.to_builtins(signed)
        body = body_of({"event": CHECKPOINT, "at": signed.at, "customer": customer, **told})
        self._send(hook, body, headers_of(key, mark[:32], int(time()), body))
