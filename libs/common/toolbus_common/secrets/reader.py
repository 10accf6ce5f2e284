"""Reading secrets where they are kept, once for all who refer to the same, and again in time."""

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
    picked,
    references_in,
)

log = logging.getLogger(__name__)

FRESH_SECONDS = 300.0
STALE_SECONDS = 3600.0
READ_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class _Kept:
    text: str
    at: float


class Secrets:
    """What was read is believed for `fresh` seconds, and for `stale` while its store is away."""

    def __init__(
        self,
        stores: Mapping[str, Store],
        *,
        fresh: float = FRESH_SECONDS,
        stale: float = STALE_SECONDS,
    ) -> None:
        self._stores = stores
        self._fresh, self._stale = fresh, stale
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._reading: dict[tuple[str, str], asyncio.Task[str]] = {}

    async def read(self, texts: Iterable[str]) -> Values:
        """What the references in these texts stand for.

        Raises:
            SecretError: one of them cannot be had; it names the reference.

        """
        return {each: await self._value(each) for each in sorted(references_in(texts))}

    async def until_changed(self, found: Values) -> str:
        """Wait until one of them is another where it is kept; a sentence that says so.

        A process never sees its environment change: who refers to nothing else waits for ever.
        """
        watched = [each for each in found if each.store != ENVIRONMENT]
        while True:
            await asyncio.sleep(self._fresh) if watched else await asyncio.Future()
            for each in watched:
                with suppress(SecretError):  # whoever is connected stays so
                    if await self._value(each) != found[each]:
                        return f"The secret {each} changed."

    async def _value(self, reference: Reference) -> str:
        return picked(await self._text(reference.store, reference.path), reference)

    async def _text(self, store: str, path: str) -> str:
        """What is kept there; who asks while it is being read waits for the same answer."""
        kept = self._kept.get((store, path))
        if kept is not None and monotonic() - kept.at < self._fresh:
            return kept.text
        reading = self._reading.get((store, path))
        if reading is None:
            reading = asyncio.create_task(self._read(store, path))
            self._reading[store, path] = reading
            reading.add_done_callback(lambda _: self._reading.pop((store, path), None))
        try:
            return await asyncio.shield(reading)
        except SecretError as error:
            if kept is None or monotonic() - kept.at > self._stale:
                raise
            log.warning("secret.stale", extra={"secret": f"{store}:{path}", "reason": str(error)})
            return kept.text

    async def _read(self, store: str, path: str) -> str:
        try:
            async with asyncio.timeout(READ_SECONDS):
                text = await asyncio.to_thread(self._stores[store].read, path)
        except TimeoutError as error:
            raise SecretError(
                f"The store of {store}:{path} did not answer within {READ_SECONDS:g} s."
            ) from error
        if store != ENVIRONMENT:
            self._kept[store, path] = _Kept(text, monotonic())
        return text
