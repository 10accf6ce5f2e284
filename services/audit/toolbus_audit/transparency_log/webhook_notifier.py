"""Send each customer's latest checkpoint to webhooks, at least once.

A newer checkpoint replaces one that is not delivered yet, because it covers the same events. The
last checkpoint that each webhook accepted is stored in the bucket, so that a restart neither skips
nor repeats a checkpoint.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from time import time

import msgspec
from standardwebhooks import Webhook as Signer

from toolbus_audit.transparency_log.checkpoint_delivery import (
    FIRST_RETRY,
    LatestCheckpoints,
    NotAcceptedError,
    Recipient,
)
from toolbus_audit.transparency_log.log_signer import Log
from toolbus_audit.webhooks.signing import NoSecretError, body_of, headers_of, signers_of
from toolbus_common.config import Webhook
from toolbus_common.config.access.rules import CHECKPOINT
from toolbus_common.egress.http_messages import HttpError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.secrets import SecretError, Secrets, filled

DELIVERED = (
    "delivered."  # prefix of bucket entries: digest of the last checkpoint a webhook accepted
)

Post = Callable[[Webhook, bytes, Mapping[str, str]], Awaitable[None]]


class WebhookNotifier:
    """Notifier of the webhooks that `configured` returns, by name."""

    def __init__(
        self,
        configured: Callable[[], Mapping[str, Webhook]],
        send: Post,
        secrets: Secrets,
        bucket: Bucket,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self._configured = configured
        self._send = send
        self._bucket = bucket
        self._secrets = secrets
        self._newest = LatestCheckpoints("webhook", self._deliver, first_retry)

    def offer(self, checkpoints: list[tuple[str, Log]]) -> None:
        """Queue checkpoints without waiting for delivery."""
        for customer, each in checkpoints:
            for name, hook in self._configured().items():
                if hook.wants(CHECKPOINT, customer):
                    self._newest.offer((name, customer), each)

    async def close(self) -> None:
        """Stop. Checkpoints that are not delivered are offered again after the next start."""
        await self._newest.close()

    async def _deliver(self, recipient: Recipient, newest: Log) -> float:
        name, customer = recipient
        hook = self._configured().get(name)
        if hook is None or not hook.wants(CHECKPOINT, customer):
            return 0.0
        entry, digest = f"{DELIVERED}{name}.{customer}", sha256(newest.note.encode()).hexdigest()
        before = await self._bucket.get(entry)
        if before is None or before.value != digest.encode():
            try:
                secret = filled(hook.secret, await self._secrets.read([hook.secret]))
                async with self._newest.slots:
                    await self._post(hook, signers_of(secret), customer, newest, digest)
            except (HttpError, NoSecretError, SecretError) as error:
                raise NotAcceptedError(str(error)) from error
            await self._bucket.put(entry, digest.encode())
        return 0.0

    async def _post(
        self,
        hook: Webhook,
        signers: Sequence[Signer],
        customer: str,
        checkpoint: Log,
        digest: str,
    ) -> None:
        fields = msgspec.to_builtins(checkpoint)
        body = body_of({"event": CHECKPOINT, "at": checkpoint.at, "customer": customer, **fields})
        await self._send(hook, body, headers_of(signers, digest[:32], int(time()), body))
