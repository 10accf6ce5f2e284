"""Which guards apply to a call, and which level or entry attached each of them (no I/O)."""

from collections.abc import Iterator
from typing import Final

from toolbus_common.access.model_grants import names_of
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import granted
from toolbus_common.config.guards.guard import Phase
from toolbus_common.contracts.model_calls import is_model_method

ALWAYS: Final = "always"
OF_TOOLS: Final[tuple[Phase, ...]] = ("arguments", "results")
OF_MODELS: Final[tuple[Phase, ...]] = ("prompts", "completions")


def phases_of(method: str) -> tuple[Phase, ...]:
    """Return the phases of a call with this method: before the call, and after it."""
    return OF_MODELS if is_model_method(method) else OF_TOOLS


def attached(
    principal: Principal, server: str, tool: str, method: str
) -> dict[str, tuple[str, ...]]:
    """Return the guards of a call, in the order of the configuration, and what attached each.

    The guards of all levels, of their groups, of the server or provider, and of the tool or model
    add up. Guards without a phase of this method are left out. A name that the configuration does
    not define is left out too: a configuration with such a name is not accepted.
    """
    found: dict[str, list[str]] = {}
    for name, origin in each_attachment(principal, server, tool, method):
        found.setdefault(name, []).append(origin)
    phases = frozenset(phases_of(method))
    guards = principal.declared.guards
    return {
        name: tuple(dict.fromkeys(found.get(name, ())))
        for name, guard in guards.items()
        if name in found and not phases.isdisjoint(guard.on)
    }


def each_attachment(
    principal: Principal, server: str, tool: str, method: str
) -> Iterator[tuple[str, str]]:
    """Yield each guard with what attached it, for all phases. Names can be unknown."""
    declared = principal.declared
    for name, guard in declared.guards.items():
        if guard.always:
            yield name, ALWAYS
    for label, level in principal.levels:
        yield from ((name, label) for name in level.guards)
        for group in level.groups:
            if group in declared.groups:
                yield from ((name, f"group:{group}") for name in declared.groups[group].guards)
    if is_model_method(method):
        yield from _of_model(principal, server, tool)
    elif server in declared.servers:
        own = declared.servers[server]
        yield from ((name, f"server:{server}") for name in own.guards)
        if tool in own.tools:
            yield from ((name, f"tool:{server}__{tool}") for name in own.tools[tool].guards)


def _of_model(principal: Principal, provider: str, model: str) -> Iterator[tuple[str, str]]:
    declared = principal.declared
    if provider in declared.providers:
        yield from ((name, f"provider:{provider}") for name in declared.providers[provider].guards)
    if not declared.model_guards:
        return
    names = tuple(names_of(declared, provider, model))
    for pattern, guards in declared.model_guards.items():
        if any(granted((pattern,), each) for each in names):
            yield from ((name, f"model:{pattern}") for name in guards)
