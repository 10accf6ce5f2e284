"""Write the latest checkpoints to a directory or bucket outside the store.

People who can edit the store must not have write access to these copies.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from urllib.parse import quote

from toolbus_audit.export.targets import target_for
from toolbus_audit.transparency_log.checkpoint_delivery import (
    FIRST_RETRY,
    MAX_CONCURRENT,
    LatestCheckpoints,
    NotAcceptedError,
    Recipient,
)
from toolbus_audit.transparency_log.log_signer import Log
from toolbus_common.config import Checkpoints, Place
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.object_storage.errors import TargetError
from toolbus_common.secrets import Secrets

_RECEIVER = "checkpoints"


class CheckpointFiles:
    """Writer to the location that `configured` returns.

    `is_operator_named` returns whether the operator (not an API caller) configured the location.
    """

    def __init__(
        self,
        configured: Callable[[], Checkpoints | None],
        http: HttpClient,
        is_operator_named: Callable[[Place], bool],
        secrets: Secrets,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self._configured = configured
        self._http = http
        self._is_operator_named = is_operator_named
        self._secrets = secrets
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT, "checkpoints")
        self._newest = LatestCheckpoints("copy", self._deliver, first_retry)

    def offer(self, checkpoints: list[tuple[str, Log]]) -> None:
        """Queue checkpoints without waiting for delivery."""
        for customer, each in checkpoints if self._configured() else ():
            self._newest.offer((_RECEIVER, customer), each)

    async def close(self) -> None:
        """Stop. Checkpoints that are not written are offered again after the next start."""
        await self._newest.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def states(self) -> dict[str, str]:
        """Return the location and its problems, for `toolbus status`."""
        location = self._configured()
        return {location.to: _summary(self._newest.problems)} if location else {}

    async def _deliver(self, recipient: Recipient, newest: Log) -> float:
        """Write a new file; existing files are never replaced."""
        location = self._configured()
        if location is None:
            return 0.0
        is_operator_named = self._is_operator_named
        target = target_for(
            location, self._http, self._secrets, lambda: is_operator_named(location), self._threads
        )
        customer = quote(recipient[1], safe="")
        # A cosigned checkpoint is written to a separate file.
        digest = sha256(newest.note.encode()).hexdigest()[:8]
        name = f"{customer}/{newest.stream}/{newest.size:020d}-{newest.at}-{digest}.note"
        try:
            async with self._newest.slots:
                await target.put(name, newest.note.encode())
        except TargetError as error:
            raise NotAcceptedError(str(error)) from error
        return float(location.seconds)


def _summary(problems: dict[Recipient, str]) -> str:
    if not problems:
        return "ok"
    (_, customer), reason = next(iter(problems.items()))
    return f"checkpoints of {len(problems)} customers are not written ({customer}: {reason})"
