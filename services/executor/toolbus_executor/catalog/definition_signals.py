"""Signals of definitions: the rules that find instructions to a model or hidden text in them."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from toolbus_common.contracts import CatalogEntry, Listing
from toolbus_common.contracts.records.pin_names import PINNED
from toolbus_common.guards.injection.detector import InjectionDetector
from toolbus_common.guards.server_instructions import instructions_entry
from toolbus_common.guards.texts.json_texts import JsonTexts, TooDeepError

# From this score on, a definition is not trusted as a part of the first listing.
BLOCKING = 0.8
UNCHECKED = "not-checked"  # the signal of a definition whose texts could not be read
_LARGE = 32 * 1024  # bytes; a larger definition is searched in a thread
_KNOWN = 20_000  # definitions whose signals are stored

Signals = dict[str, float]


class DefinitionSignals:
    """The signals of definitions, computed once for each digest."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Signals] = OrderedDict()
        self._detector: InjectionDetector | None = None

    async def added(self, listing: Listing) -> Listing:
        """Return the listing with the signals of its definitions and instructions."""
        found: dict[str, Any] = {}
        for kind in PINNED:
            entries = getattr(listing, kind)
            found[kind] = tuple([await self._entry(each) for each in entries])
        instructions = instructions_entry(listing)
        if instructions is not None:
            found["signals"] = (await self._entry(instructions)).signals
        return listing.model_copy(update=found)

    async def _entry(self, entry: CatalogEntry) -> CatalogEntry:
        known = self._known.get(entry.digest) if entry.digest else None
        if known is None:
            known = await self._signals(entry.digest, entry.as_sent)
        return entry if known == entry.signals else entry.model_copy(update={"signals": known})

    async def _signals(self, digest: str, definition: dict[str, Any]) -> Signals:
        body = msgspec.json.encode(definition)
        if len(body) > _LARGE:
            found = await asyncio.to_thread(self._searched, body)
        else:
            found = self._searched(body)
        if digest:
            self._known[digest] = found
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return found

    def _searched(self, body: bytes) -> Signals:
        if self._detector is None:
            self._detector = InjectionDetector(definitions=True)
        try:
            texts = JsonTexts(body).texts
        except (msgspec.DecodeError, TooDeepError):
            return {UNCHECKED: BLOCKING}
        scores: Signals = {}
        for each in self._detector.find(texts):
            scores[each.rule] = max(scores.get(each.rule, 0.0), round(each.score, 2))
        return dict(sorted(scores.items()))


def severity(signals: Mapping[str, float]) -> float:
    """Return the highest score; 0 without signals."""
    return max(signals.values(), default=0.0)


def named(signals: Iterable[str]) -> str:
    """Return the names of the rules for a reason or an event."""
    return ", ".join(sorted(signals))
