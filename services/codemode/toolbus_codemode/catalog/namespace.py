"""Tool namespace of a caller: the servers and tools that the caller's programs may call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from toolbus_codemode.catalog.identifiers import RESERVED, distinct
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.access.tool_patterns import full_name


@dataclass(frozen=True, slots=True)
class Tool:
    """Tool, with the name that its server uses and its identifiers in programs."""

    server: str
    name: str
    space: str  # the server's identifier in programs
    function: str  # the tool's identifier in programs
    definition: dict[str, Any]
    called: str = ""  # name for calls outside a program

    @property
    def path(self) -> str:
        """Name in programs, such as `github.create_issue`."""
        return f"{self.space}.{self.function}"

    @property
    def schema(self) -> Any:
        """Input schema of the tool."""
        return self.definition.get("inputSchema")

    @property
    def description(self) -> str:
        """Description by the server or the operator."""
        return str(self.definition.get("description") or self.definition.get("title") or "")


class ToolNamespace:
    """Every tool within a caller's grants, by server and function."""

    def __init__(
        self,
        offered: Mapping[str, Mapping[str, dict[str, Any]]],
        bounds: EffectiveGrants,
        called: Callable[[str, str], str] = full_name,
    ) -> None:
        """Select the tools within the grants `bounds`.

        `offered` contains definitions by server and by the tool name that the server uses. `called`
        returns the name by which agents call a tool outside a program.
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
        """Tools of each server, by function."""
        return self._spaces

    def tools(self) -> list[Tool]:
        """Return every tool, sorted by server and tool."""
        return [tool for functions in self._spaces.values() for tool in functions.values()]

    def tool(self, space: str, function: str) -> Tool | None:
        """Find a tool by its identifiers in programs, or by the names of server and tool."""
        for each in self._spaces.get(space, self._spaces_named(space)).values():
            if function in (each.function, each.name, each.called):
                return each
        return None

    def near(self, space: str, function: str, maximum: int = 3) -> list[str]:
        """Return the paths of existing tools that are most similar to an unknown path."""
        paths = {tool.path: tool for tool in self.tools()}
        close = get_close_matches(f"{space}.{function}", paths, n=maximum, cutoff=0.5)
        same = [path for path, tool in paths.items() if tool.function == function]
        return list(dict.fromkeys([*same, *close]))[:maximum]

    def _spaces_named(self, server: str) -> dict[str, Tool]:
        for functions in self._spaces.values():
            for tool in functions.values():
                if tool.server == server:
                    return functions
        return {}
