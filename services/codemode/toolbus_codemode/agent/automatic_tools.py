"""The tools that a run executes without its client."""

from collections.abc import Mapping
from time import time

from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.mcp.builtin_server import BUILT_IN, DOCS, LIST, READ, SEARCH

# The tools of code mode that only read definitions. A program needs `auto_execute`.
_READING = frozenset(full_name(BUILT_IN, each) for each in (LIST, READ, DOCS, SEARCH))


class AutomaticTools:
    """Map of names to the full names of the tools that a run may execute itself.

    These are the added tools that match `auto_execute`, and those that a person approves each time.
    `names` are the full names of the added tools.
    """

    def __init__(self, directory: ConfigView, key_digest: str, names: Mapping[str, str]) -> None:
        self._directory = directory
        self._key_digest = key_digest
        self._names = names
        self._allowed: dict[str, str] = {}
        self.refresh()

    def __call__(self, name: str) -> str:
        """Return the full name of a tool that runs automatically; empty for any other name."""
        return self._allowed.get(name, "")

    def refresh(self) -> None:
        """Apply the present rules of the key, before a turn. A key without access has no tools."""
        principal = self._directory.now.principal_for(self._key_digest, time())
        self._allowed = {} if principal is None else _allowed(principal, self._names)


def _allowed(principal: Principal, names: Mapping[str, str]) -> dict[str, str]:
    own = principal.own
    return {
        name: full
        for name, full in names.items()
        if granted(own.auto_execute, full) or full in _READING or principal.covering(full)
    }
