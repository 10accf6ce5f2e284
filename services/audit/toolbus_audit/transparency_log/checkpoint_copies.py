"""Writes the newest checkpoints where who edits the store does not reach: a directory, a bucket."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from urllib.parse import quote

from toolbus_audit.delivery.http_client import Poster
from toolbus_audit.export.targets import PlaceError, target_for
from toolbus_audit.transparency_log.checkpoint_delivery import (
    FIRST_RETRY,
    Line,
    Newest,
    NotTakenError,
)
from toolbus_audit.transparency_log.sealer import Log
from toolbus_common.config import Checkpoints, Place
from toolbus_common.secrets import Secrets

MOST_THREADS = 4
_RECEIVER = "checkpoints"


class Copying:
    """`declared` gives the place as it is now; `named` whether the operator named it."""

    def __init__(
        self,
        declared: Callable[[], Checkpoints | None],
        poster: Poster,
        named: Callable[[Place], bool],
        secrets: Secrets,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self._declared = declared
        self._poster = poster
        self._named = named
        self._secrets = secrets
        self._threads = ThreadPoolExecutor(MOST_THREADS, "checkpoints")
        self._newest = Newest("copy", self._deliver, first_retry)

    def tell(self, signed: list[tuple[str, Log]]) -> None:
        """Take checkpoints; return at once."""
        for customer, each in signed if self._declared() else ():
            self._newest.offer((_RECEIVER, customer), each)

    async def close(self) -> None:
        """Stop; what was not written is written after the next start."""
        await self._newest.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def states(self) -> dict[str, str]:
        """For `toolbus status`: where they go, and what does not get there."""
        place = self._declared()
        return {place.to: _worst(self._newest.why)} if place else {}

    async def _deliver(self, line: Line, newest: Log) -> float:
        """Write a file of its own: what was written once is never written over."""
        place = self._declared()
        if place is None:
            return 0.0
        named = self._named
        target = target_for(place, self._poster, self._secrets, lambda: named(place), self._threads)
        customer = quote(line[1], safe="")
        mark = sha256(newest.note.encode()).hexdigest()[:8]  # cosigned, it is another file
        name = f"{customer}/{newest.stream}/{newest.size:020d}-{newest.at}-{mark}.note"
        try:
            await target.put(name, newest.note.encode())
        except PlaceError as error:
            raise NotTakenError(str(error)) from error
        return float(place.seconds)


def _worst(why: dict[Line, str]) -> str:
    if not why:
        return "ok"
    (_, customer), reason = next(iter(why.items()))
    return f"the checkpoints of {len(why)} customers are not there ({customer}: {reason})"
