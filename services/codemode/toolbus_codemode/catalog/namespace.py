"""What one caller's programs may call: servers and tools under the names programs use for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from toolbus_codemode.catalog.identifiers import RESERVED, distinct
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.access.tool_patterns import full_name


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool, by its server's name for it and by what programs call it."""

    server: str
    name: str
    space: str  # the server, as programs write it
    function: str  # the tool, as programs write it
    definition: dict[str, Any]
    called: str = ""  # what agents that call it without a program know it by

    @property
    def path(self) -> str:
        """How a program calls it: `github.create_issue`."""
        return f"{self.space}.{self.function}"

    @property
    def schema(self) -> Any:
        """Its input schema."""
        return self.definition.get("inputSchema")

    @property
    def description(self) -> str:
        """Its description, as its server or the operator wrote it."""
        return str(self.definition.get("description") or self.definition.get("title") or "")


class Shelf:
    """Every tool within a caller's bounds, by server and function."""

    def __init__(
        self,
        offered: Mapping[str, Mapping[str, dict[str, Any]]],
        bounds: EffectiveGrants,
        called: Callable[[str, str], str] = full_name,
    ) -> None:
        """`offered` holds the definitions of every server's tools, by its own names.

        `called` tells what agents know a server's tool by.
        """
        self._spaces: dict[str, dict[str, Tool]] = {}
        for space, server in distinct(offered, RESERVED).items():
            seen = {
                name: definition
                for name, definition in offered[server].items()
                if bounds.cover(full_name(server, name))
            }
            if seen:
                self._spaces[space] = {
                    function: Tool(server, name, space, function, seen[name], called(server, name))
                    for function, name in distinct(seen).items()
                }

    @property
    def spaces(self) -> dict[str, dict[str, Tool]]:
        """The tools of each server, by function."""
        return self._spaces

    def tools(self) -> list[Tool]:
        """Every tool, in the order of the servers' and the tools' names."""
        return [tool for functions in self._spaces.values() for tool in functions.values()]

    def tool(self, space: str, function: str) -> Tool | None:
        """A tool by what programs call it, or by its server's own names."""
        for each in self._spaces.get(space, self._spaces_named(space)).values():
            if function in (each.function, each.name, each.called):
                return each
        return None

    def near(self, space: str, function: str, most: int = 3) -> list[str]:
        """The paths most like one that leads nowhere."""
        paths = {tool.path: tool for tool in self.tools()}
        close = get_close_matches(f"{space}.{function}", paths, n=most, cutoff=0.5)
        same = [path for path, tool in paths.items() if tool.function == function]
        return list(dict.fromkeys([*same, *close]))[:most]

    def _spaces_named(self, server: str) -> dict[str, Tool]:
        for functions in self._spaces.values():
            for tool in functions.values():
                if tool.server == server:
                    return functions
        return {}
