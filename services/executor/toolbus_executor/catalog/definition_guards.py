"""Guards of the phase `definitions`, and plugins at `on_definition`, for a server's definitions."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import time

import msgspec

from toolbus_common.config import Configuration, Guard, Server
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import CatalogEntry, CheckedCall, Listing
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.records.pin_names import INSTRUCTIONS, PINNED
from toolbus_common.errors import GuardBlockedError
from toolbus_common.guards.inspector import Inspection, Inspector
from toolbus_common.guards.server_instructions import instructions_entry
from toolbus_common.plugins.checks import PluginChecks
from toolbus_common.plugins.decisions import Decision, Unasked, refusal_of
from toolbus_common.plugins.requests import PluginRequests

SECONDS = 15.0  # for all guards of one definition
PLUGIN_SECONDS = 12.0  # for all plugins of one listing; a connection has 20 s to list its server
AT_ONCE = 8  # questions to plugins
AGAIN_SECONDS = 30.0  # before definitions are checked again that a plugin could not be asked about

GUARD_SCORE = 0.5  # of a signal from a guard that gives no score


class DefinitionGuards:
    """The guards of one server's definitions.

    A definition is quarantined if a guard rejects it, or if a guard that fails closed could not
    check it. A redacted definition is shown in its redacted form, with the original's digest.
    Plugins are asked about definitions that the guards let pass. After some time, `again` is called
    if a plugin that fails closed could not be asked.
    """

    def __init__(
        self,
        server: str,
        declared: Server,
        inspector: Callable[[], Inspector | None],
        plugins: PluginChecks | None = None,
        again: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server
        self._declared = declared
        self._inspector = inspector
        self._plugins = plugins
        self._again = again
        self._timer: asyncio.TimerHandle | None = None

    async def checked(self, listing: Listing) -> Listing:
        """Return the listing with the redactions, signals and reasons of guards and plugins."""
        return await self._plugged(await self._guarded(listing))

    async def _guarded(self, listing: Listing) -> Listing:
        inspector = self._inspector()
        if inspector is None:
            return listing
        always = (
            name
            for name, guard in inspector.guards.items()
            if guard.always and "definitions" in guard.on
        )
        attached = dict.fromkeys((*self._declared.guards, *always))
        every = inspector.applicable(tuple(attached), "definitions")
        changes: dict[str, object] = {}
        for kind in PINNED:
            found = []
            for each in getattr(listing, kind):
                tool = self._declared.tools.get(each.name) if kind == "tools" else None
                names = (*every, *(tool.guards if tool else ()))
                applied = inspector.applicable(tuple(dict.fromkeys(names)), "definitions")
                found.append(await self._entry(inspector, applied, each) if applied else each)
            changes[kind] = tuple(found)
        instructions = instructions_entry(listing)
        if every and instructions is not None:
            found_in = await self._entry(inspector, every, instructions)
            changes |= {"signals": found_in.signals, "held": found_in.held}
            if found_in.definition != instructions.definition and not found_in.held:
                changes["held"] = "a guard found something in it that it would remove"
        return listing.model_copy(update=changes)

    async def _plugged(self, listing: Listing) -> Listing:
        """Return the listing without what plugins refuse: it is quarantined."""
        requests = self._plugins.requests if self._plugins is not None else None
        if requests is None or not _definition_plugins(requests.declared):
            return listing
        changes: dict[str, object] = {}
        until, unasked = time() + PLUGIN_SECONDS, False
        for kind in PINNED:
            entries = getattr(listing, kind)
            reasons = await self._refusals(requests, kind, entries, until)
            unasked = unasked or any(isinstance(each, Unasked) for each in reasons)
            changes[kind] = tuple(
                each.model_copy(update={"held": str(held)}) if held else each
                for each, held in zip(entries, reasons, strict=True)
            )
        instructions = instructions_entry(listing)
        if instructions is not None:
            (held,) = await self._refusals(requests, INSTRUCTIONS, (instructions,), until)
            unasked = unasked or isinstance(held, Unasked)
            changes["held"] = str(held)
        self._check_again(unasked=unasked)
        return listing.model_copy(update=changes)

    def _check_again(self, *, unasked: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(AGAIN_SECONDS, self._again) if unasked else None

    async def _refusals(
        self, requests: PluginRequests, kind: str, entries: Sequence[CatalogEntry], until: float
    ) -> list[str]:
        """Return why each definition is quarantined, by a guard or by a plugin."""
        places = asyncio.Semaphore(AT_ONCE)

        async def refusal(entry: CatalogEntry) -> str:
            async with places:
                return entry.held or await self._refusal(requests, kind, entry, until)

        return await asyncio.gather(*map(refusal, entries))

    async def _refusal(
        self, requests: PluginRequests, kind: str, entry: CatalogEntry, until: float
    ) -> str:
        decision = Decision(
            "on_definition",
            "definition",
            f"definition.{self._server}.{entry.digest}",
            server=self._server,
            tool=entry.name,
        )
        content = {"kind": kind, "definition": entry.definition}
        return await refusal_of(requests, decision, content, until)

    async def _entry(
        self, inspector: Inspector, names: tuple[str, ...], entry: CatalogEntry
    ) -> CatalogEntry:
        body = msgspec.json.encode(entry.definition)
        call = CheckedCall(
            call_id=f"definition.{self._server}.{entry.digest}",
            customer=DEFAULT_CUSTOMER,
            key="",
            server=self._server,
            tool=entry.name[:256],
            deadline=time() + SECONDS,
        )
        found = await inspector.inspect(names, "definitions", call, body)
        return _decided(entry, body, found)


def checks_of(configuration: Configuration) -> tuple[Mapping[str, Guard], Mapping[str, Plugin]]:
    """Return the guards, and the plugins that are asked about definitions."""
    return configuration.guards, _definition_plugins(configuration.plugins)


def _definition_plugins(declared: Mapping[str, Plugin]) -> dict[str, Plugin]:
    return {name: each for name, each in declared.items() if "on_definition" in each.hooks}


def _decided(entry: CatalogEntry, body: bytes, found: Inspection) -> CatalogEntry:
    signals = dict(entry.signals)
    for check in found.checks:
        for rule in check.findings:
            signals[rule] = max(signals.get(rule, 0.0), check.score or GUARD_SCORE)
    changes: dict[str, object] = {"signals": dict(sorted(signals.items()))}
    last = found.checks[-1] if found.checks else None
    if found.error is not None and last is not None:
        if isinstance(found.error, GuardBlockedError):
            changes["held"] = f"the guard '{last.guard}' found {', '.join(last.findings)}"
        else:
            changes["held"] = f"the guard '{last.guard}' could not check it"
    elif found.ask:
        changes["held"] = f"the guard '{found.ask}' requires an approval"
    elif found.body != body:
        redacted = msgspec.json.decode(found.body)
        if redacted.get("name") != entry.definition.get("name"):
            changes["held"] = "a guard found something in its name"
        else:
            changes |= {"definition": redacted, "sent": entry.as_sent}
    return entry.model_copy(update=changes)
