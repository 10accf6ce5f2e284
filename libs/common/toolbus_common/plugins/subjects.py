"""Names of plugins: in the checks of a call, on the bus, and as users of the bus (no I/O)."""

from collections.abc import Mapping
from typing import Final

from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import HookRequest

PREFIX: Final = "plugin:"  # before the name of a plugin among the guards of a call


def checker_of(name: str) -> str:
    """Return the name of a plugin among the guards of a call. No guard can have this name."""
    return PREFIX + name


def is_plugin(checker: str) -> bool:
    """Return whether a name among the guards of a call is that of a plugin."""
    return checker.startswith(PREFIX)


def subject_of(point: str, name: str) -> str:
    """Return the subject of requests to a plugin."""
    return f"{HookRequest.SUBJECT}.{point}.{name}"


def bus_hooks(plugins: Mapping[str, Plugin]) -> dict[str, tuple[str, ...]]:
    """Return the subjects of each plugin that connects to the bus itself."""
    return {
        name: tuple(subject_of(point, name) for point in plugin.hooks)
        for name, plugin in plugins.items()
        if plugin.on_bus
    }
