"""Reader of secrets from their stores. All users of a secret share one cache and one request."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from toolbus_common.secrets.base import Store
from toolbus_common.secrets.references import (
    ENVIRONMENT,
    Reference,
    SecretError,
    Values,
    references_in,
    selected,
)

log = logging.getLogger(__name__)

FRESH_SECONDS = 300.0
STALE_SECONDS = 3600.0
READ_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class _Cached:
    text: str
    at: float


class Secrets:
    """Reader that caches secrets for `fresh` seconds.

    While their store is down, cached secrets are used for up to `stale` seconds.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        *,
        fresh: float = FRESH_SECONDS,
        stale: float = STALE_SECONDS,
    ) -> None:
        self._stores = stores
        self._fresh, self._stale = fresh, stale
        self._cache: dict[tuple[str, str], _Cached] = {}
        self._reading: dict[tuple[str, str], asyncio.Task[str]] = {}

    async def read(self, texts: Iterable[str]) -> Values:
        """Return the values of all references in these texts.

        Raises:
            SecretError: a secret cannot be read. The message contains its reference.

        """
        return {each: await self._value(each) for each in sorted(references_in(texts))}

    async def until_changed(self, found: Values) -> str:
        """Wait until a store contains another value for one of these secrets.

        Return a message about the change. Environment variables of a process never change, so the
        wait has no end if all references are variables.
        """
        watched = [each for each in found if each.store != ENVIRONMENT]
        while True:
            await asyncio.sleep(self._fresh) if watched else await asyncio.Future()
            for each in watched:
                with suppress(SecretError):  # existing connections keep their secret
                    if await self._value(each) != found[each]:
                        return f"The secret {each} changed."

    async def _value(self, reference: Reference) -> str:
        return selected(await self._text(reference.store, reference.path), reference)

    async def _text(self, store: str, path: str) -> str:
        """Return the text at a path of a store. Concurrent readers share one request."""
        cached = self._cache.get((store, path))
        if cached is not None and monotonic() - cached.at < self._fresh:
            return cached.text
        reading = self._reading.get((store, path))
        if reading is None:
            reading = asyncio.create_task(self._read(store, path))
            self._reading[store, path] = reading
            reading.add_done_callback(lambda _: self._reading.pop((store, path), None))
        try:
            return await asyncio.shield(reading)
        except SecretError as error:
            if cached is None or monotonic() - cached.at > self._stale:
                raise
            log.warning("secret.stale", extra={"secret": f"{store}:{path}", "reason": str(error)})
            return cached.text

    async def _read(self, store: str, path: str) -> str:
        try:
            async with asyncio.timeout(READ_SECONDS):
                text = await asyncio.to_thread(self._stores[store].read, path)
        except TimeoutError as error:
            raise SecretError(
                f"The store of {store}:{path} did not respond within {READ_SECONDS:g} s; check "
                "that this service can reach it."
            ) from error
        if store != ENVIRONMENT:
            self._cache[store, path] = _Cached(text, monotonic())
        return text
