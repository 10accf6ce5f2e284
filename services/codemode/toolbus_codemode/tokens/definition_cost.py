"""Tokens of definitions: of each tool, and of all a caller would be told of without code mode."""

from collections import Counter
from hashlib import blake2b
from weakref import WeakKeyDictionary

import msgspec

from toolbus_codemode.catalog.namespace import Shelf, Tool
from toolbus_codemode.tokens.tokenizer import Counter as TokenCounter
from toolbus_common.access.tool_patterns import full_name

MOST_KEPT = 50_000  # definitions; what is forgotten is counted again


class Measure:
    """Counts each definition once, and each shelf once; a shelf lasts until anything changes."""

    def __init__(self, tokens: TokenCounter) -> None:
        self.tokens = tokens
        self._counted: dict[bytes, int] = {}
        self._shelves: WeakKeyDictionary[Shelf, dict[str, dict[str, int]]] = WeakKeyDictionary()

    def tools(self, shelf: Shelf) -> dict[str, dict[str, int]]:
        """Server -> tool -> tokens."""
        found = self._shelves.get(shelf)
        if found is None:
            found = {}
            for tool in shelf.tools():
                found.setdefault(tool.server, {})[tool.name] = self._of(tool)
            self._shelves[shelf] = found
        return found

    def servers(self, shelf: Shelf, most: int, others: str) -> dict[str, int]:
        """Server -> tokens of its tools; beyond `most` servers the cheapest count as `others`."""
        sums = Counter({name: sum(tools.values()) for name, tools in self.tools(shelf).items()})
        told = dict(sums.most_common(most))
        rest = sums.total() - sum(told.values())
        return {**told, others: rest} if rest else told

    def _of(self, tool: Tool) -> int:
        name = full_name(tool.server, tool.name)
        told = definition(name, tool.description, tool.schema)
        digest = blake2b(told.encode(), digest_size=16).digest()
        if digest not in self._counted:
            if len(self._counted) >= MOST_KEPT:
                self._counted.clear()
            self._counted[digest] = self.tokens.of(told)
        return self._counted[digest]


def definition(name: str, description: str, schema: object) -> str:
    """A tool as models are told of it in a request: what else a server says of it is left out."""
    told = {"name": name, "description": description, "input_schema": schema or {}}
    return msgspec.json.encode(told).decode()
