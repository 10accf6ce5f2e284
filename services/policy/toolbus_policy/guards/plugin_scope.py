"""Which plugins are asked about a call (no I/O)."""

from collections.abc import Iterator

from toolbus_common.access.model_grants import names_of
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.config import Configuration
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts.model_calls import is_model_method


def plugins_of(
    declared: Configuration, principal: Principal, server: str, tool: str, method: str
) -> dict[str, Plugin]:
    """Return the plugins whose scope contains a call. `server` can be a provider of models."""
    return {
        name: plugin
        for name, plugin in declared.plugins.items()
        if (not plugin.customers or principal.customer in plugin.customers)
        and (not plugin.keys or principal.key in plugin.keys)
        and (not plugin.servers or server in plugin.servers)
        and (
            not plugin.tools
            or any(granted(plugin.tools, each) for each in _names(declared, server, tool, method))
        )
    }


def _names(declared: Configuration, server: str, tool: str, method: str) -> Iterator[str]:
    if is_model_method(method):
        return names_of(declared, server, tool)
    return iter((full_name(server, tool),))
