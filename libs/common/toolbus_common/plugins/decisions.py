"""Questions to plugins about decisions that belong to no call, such as a sign-in."""

import logging
from collections.abc import Iterator, Mapping
from time import time
from typing import Any

from msgspec import Struct

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config.plugins import Plugin, Point
from toolbus_common.contracts import CheckedCall
from toolbus_common.plugins import answers, scope
from toolbus_common.plugins.requests import PluginFaultError, PluginRequests

log = logging.getLogger(__name__)

SECONDS = 15.0  # for all plugins of one decision; the caller of a sign-in waits 20 s
LONGEST_NAME = 256  # shown to plugins; the scope of a plugin is compared with the whole name


class Unasked(str):
    """A refusal, because a plugin that fails closed could not be asked: why."""

    __slots__ = ()


class Decision(Struct, frozen=True):
    """What is decided. Names that it does not have are empty; `what` completes `refused this`."""

    point: Point
    what: str
    id: str
    customer: str = ""
    key: str = ""
    server: str = ""
    tool: str = ""


async def refusal_of(
    requests: PluginRequests, decision: Decision, content: Any, until: float = 0.0
) -> str:
    """Ask the plugins of a decision in their order, and return why one refused it, or nothing.

    A plugin that fails closed refuses what it could not be asked about (`Unasked`), also when the
    deadline `until` has passed (default: after `SECONDS`).
    """
    call = CheckedCall(
        call_id=decision.id, customer=decision.customer, key=decision.key,
        server=decision.server, tool=decision.tool[:LONGEST_NAME],
        deadline=until or time() + SECONDS,
    )  # fmt: skip
    for name, plugin in _plugins_of(requests.declared, decision):
        sent = content if plugin.receives(decision.point) else None
        try:
            answer = await requests.ask(name, plugin, decision.point, call, sent)
        except PluginFaultError as fault:
            log.warning(
                "plugin.failed",
                extra={"plugin": name, "point": decision.point, "reason": str(fault)},
            )
            if plugin.fails_closed:
                return Unasked(
                    f"The plugin '{name}' could not be asked about this {decision.what}: {fault}"
                )
            continue
        if answer.verdict == "refuse":
            log.info("plugin.refused", extra={"plugin": name, "point": decision.point})
            reason = answers.shown_reason(answer)
            return f"The plugin '{name}' refused this {decision.what}: {reason}"
    return ""


def _plugins_of(declared: Mapping[str, Plugin], decision: Decision) -> Iterator[tuple[str, Plugin]]:
    """Yield the plugins whose point and scope contain a decision, in their order."""
    found = (
        (plugin.order, name, plugin)
        for name, plugin in declared.items()
        if decision.point in plugin.hooks and contains(plugin, decision)
    )
    for _, name, plugin in sorted(found, key=lambda each: each[:2]):
        yield name, plugin


def contains(plugin: Plugin, decision: Decision) -> bool:
    """Return whether the scope of a plugin contains a decision."""
    return scope.contains(
        plugin,
        customer=decision.customer,
        key=decision.key,
        server=decision.server,
        names=lambda: (full_name(decision.server, decision.tool),),
    )
