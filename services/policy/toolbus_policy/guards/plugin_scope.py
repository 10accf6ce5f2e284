"""Which plugins are asked about a call (no I/O)."""

from collections.abc import Iterator

from toolbus_common.access.model_grants import names_of
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Configuration
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts.model_calls import is_model_method
from toolbus_common.plugins.scope import contains


def plugins_of(
    declared: Configuration, principal: Principal, server: str, tool: str, method: str
) -> dict[str, Plugin]:
    """Return the plugins whose scope contains a call. `server` can be a provider of models."""
    return {
        name: plugin
        for name, plugin in declared.plugins.items()
        if contains(
            plugin,
            customer=principal.customer,
            key=principal.key,
            server=server,
            names=lambda: _names(declared, server, tool, method),
        )
    }


def _names(declared: Configuration, server: str, tool: str, method: str) -> Iterator[str]:
    if is_model_method(method):
        return names_of(declared, server, tool)
    return iter((full_name(server, tool),))
