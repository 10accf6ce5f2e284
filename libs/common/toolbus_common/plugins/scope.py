"""The scope of a plugin (no I/O)."""

from collections.abc import Callable, Iterable

from toolbus_common.access.tool_patterns import granted
from toolbus_common.config.plugins import Plugin


def contains(
    plugin: Plugin, *, customer: str, key: str, server: str, names: Callable[[], Iterable[str]]
) -> bool:
    """Return whether a plugin is asked about this customer, key and server, and one of the names.

    `names` returns full names of tools or models, and is called only if the scope has patterns.
    """
    return (
        (not plugin.customers or customer in plugin.customers)
        and (not plugin.keys or key in plugin.keys)
        and (not plugin.servers or server in plugin.servers)
        and (not plugin.tools or any(granted(plugin.tools, each) for each in names()))
    )
