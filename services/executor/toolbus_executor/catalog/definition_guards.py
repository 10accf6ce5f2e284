"""Guards of the phase `definitions`, and their verdicts on each definition of a server."""

from collections.abc import Callable
from time import time

import msgspec

from toolbus_common.config import Server
from toolbus_common.contracts import CatalogEntry, CheckedCall, Listing
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.records.pin_names import PINNED
from toolbus_common.errors import GuardBlockedError
from toolbus_common.guards.inspector import Inspection, Inspector
from toolbus_common.guards.server_instructions import instructions_entry

SECONDS = 15.0  # for all guards of one definition

GUARD_SCORE = 0.5  # of a signal from a guard that gives no score


class DefinitionGuards:
    """The guards of one server's definitions.

    A definition is quarantined if a guard rejects it, or if a guard that fails closed could not
    check it. A redacted definition is shown in its redacted form, with the original's digest.
    """

    def __init__(
        self, server: str, declared: Server, inspector: Callable[[], Inspector | None]
    ) -> None:
        self._server = server
        self._declared = declared
        self._inspector = inspector

    async def checked(self, listing: Listing) -> Listing:
        """Return the listing with the redactions, signals and reasons of the guards."""
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
