"""Token counts of tool definitions, per tool and per server, as without code mode."""

from collections import Counter
from hashlib import blake2b
from weakref import WeakKeyDictionary

import msgspec

from toolbus_codemode.catalog.namespace import Tool, ToolNamespace
from toolbus_codemode.tokens.tokenizer import Counter as TokenCounter
from toolbus_common.access.tool_patterns import full_name

MAX_CACHED = 50_000  # definitions in the cache


class DefinitionCounter:
    """Cache of token counts per definition and per tool namespace."""

    def __init__(self, tokens: TokenCounter) -> None:
        self.tokens = tokens
        self._counted: dict[bytes, int] = {}
        self._namespaces_by_grants: WeakKeyDictionary[ToolNamespace, dict[str, dict[str, int]]] = (
            WeakKeyDictionary()
        )

    def tools(self, namespace: ToolNamespace) -> dict[str, dict[str, int]]:
        """Return the tokens per server and tool."""
        found = self._namespaces_by_grants.get(namespace)
        if found is None:
            found = {}
            for tool in namespace.tools():
                found.setdefault(tool.server, {})[tool.name] = self._of(tool)
            self._namespaces_by_grants[namespace] = found
        return found

    def servers(self, namespace: ToolNamespace, maximum: int, others: str) -> dict[str, int]:
        """Return the tokens of the `maximum` largest servers, and of the others as `others`."""
        sums = Counter({name: sum(tools.values()) for name, tools in self.tools(namespace).items()})
        largest = dict(sums.most_common(maximum))
        rest = sums.total() - sum(largest.values())
        return {**largest, others: rest} if rest else largest

    def _of(self, tool: Tool) -> int:
        name = full_name(tool.server, tool.name)
        text = definition(name, tool.description, tool.schema)
        digest = blake2b(text.encode(), digest_size=16).digest()
        if digest not in self._counted:
            if len(self._counted) >= MAX_CACHED:
                self._counted.clear()
            self._counted[digest] = self.tokens.of(text)
        return self._counted[digest]


def definition(name: str, description: str, schema: object) -> str:
    """Return a tool's definition in the form that a request to a model contains."""
    fields = {"name": name, "description": description, "input_schema": schema or {}}
    return msgspec.json.encode(fields).decode()
