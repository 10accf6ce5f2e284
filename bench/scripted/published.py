"""Published benchmarks read from files: tool names and task questions.

Tools: a list of `{"tool_name", "description", "server"}`. Tasks: a list of `{"id", "difficulty",
"query", "expected_servers", "expected_tools"}`; other members are ignored. Neither has schemas:
they are synthesised here deterministically, as large as definitions usually are.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

Schema = dict[str, Any]
ITEMS = 10
_WORDS = (
    "amber",
    "birch",
    "cobalt",
    "delta",
    "ember",
    "fjord",
    "garnet",
    "harbour",
    "iris",
    "nova",
)
_DESCRIPTIONS = (
    "How {what} is chosen; leave it out to have the service choose, which is right for most uses.",
    "The {what} as the service writes it; take it from another tool's result, never make it up.",
    "Which {what} is meant, where there are several; the first one is taken when nothing is said.",
    "Restricts what comes back to those whose {what} is this; an empty value restricts nothing.",
)
_PARAMETERS: tuple[tuple[str, Schema], ...] = (
    ("id", {"type": "string"}),
    ("query", {"type": "string"}),
    ("name", {"type": "string"}),
    ("parent", {"type": "string"}),
    ("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
    ("cursor", {"type": "string"}),
    (
        "order",
        {"type": "string", "enum": ["newest", "oldest", "name", "size"], "default": "newest"},
    ),
    ("labels", {"type": "array", "items": {"type": "string"}}),
    ("archived", {"type": "boolean", "default": False}),
    ("since", {"type": "string", "format": "date-time"}),
    ("owner", {"type": "string"}),
)
_GROUPS = ("filter", "options")


class FormError(Exception):
    """A file does not have the format; the message names the place."""


@dataclass(frozen=True, slots=True)
class PublishedTask:
    """A question, and the tools for it as `server__tool`."""

    name: str
    hard: bool
    query: str
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """A list of tools, and the tasks that these tools can do."""

    tools: dict[str, list[Schema]]
    tasks: tuple[PublishedTask, ...]
    unknown: int  # tools that tasks name and no server has
    passed_over: int  # tasks without any known tool

    @property
    def size(self) -> int:
        """The number of tools."""
        return sum(map(len, self.tools.values()))


def published(tools_file: Path, tasks_file: Path) -> Published:
    """Read both files. Raises `FormError`."""
    tools = tools_in(tools_file)
    listed = _entries(tasks_file, ("id", "query", "expected_tools"))
    read = [(_task(each, tools), len(each["expected_tools"])) for each in listed]
    tasks = tuple(task for task, _ in read if task.tools)
    unknown = sum(named - len(task.tools) for task, named in read)
    return Published(tools, tasks, unknown, len(read) - len(tasks))


def tools_in(path: Path) -> dict[str, list[Schema]]:
    """Return server -> definitions, with synthesised schemas. Raises `FormError`."""
    found: dict[str, list[Schema]] = {}
    for each in _entries(path, ("tool_name", "server", "description")):
        server = re.sub(r"[^a-z0-9]+", "-", str(each["server"]).lower()).strip("-")
        found.setdefault(server, []).append(_definition(server, each))
    return found


def _entries(path: Path, needed: tuple[str, ...]) -> list[dict[str, Any]]:
    body = json.loads(path.read_text())
    if not isinstance(body, list):
        raise FormError(f"{path.name} holds no list.")
    for place, each in enumerate(body):
        if not isinstance(each, dict) or not all(name in each for name in needed):
            raise FormError(f"{path.name}, entry {place}: needs {', '.join(needed)}.")
    return body


def _task(entry: Mapping[str, Any], tools: dict[str, list[Schema]]) -> PublishedTask:
    """Return a task; a tool of several servers belongs to one that the task names."""
    servers = [str(each).lower() for each in entry.get("expected_servers", ())]
    ordered = sorted(tools, key=lambda server: server.replace("-", "") not in servers)
    found = []
    for wanted in entry["expected_tools"]:
        having = [s for s in ordered if any(tool["name"] == wanted for tool in tools[s])]
        found += [f"{server}__{wanted}" for server in having[:1]]
    hard = entry.get("difficulty") == "hard"
    return PublishedTask(str(entry["id"]), hard, str(entry["query"]), tuple(dict.fromkeys(found)))


def _definition(server: str, entry: Mapping[str, Any]) -> Schema:
    name = str(entry["tool_name"])
    chance = Random(blake2b(f"{server} {name}".encode(), digest_size=8).digest())
    chosen = chance.sample(_PARAMETERS, chance.randint(5, 8))
    properties = {each: _described(each, schema, chance) for each, schema in chosen}
    for group in _GROUPS[: chance.randint(1, 2)]:
        inner = dict(chance.sample(_PARAMETERS, chance.randint(3, 5)))
        held = {each: _described(each, schema, chance) for each, schema in inner.items()}
        properties[group] = _described(group, {"type": "object", "properties": held}, chance)
    return {
        "name": name,
        "description": str(entry["description"]),
        "inputSchema": {
            "type": "object",
            "properties": properties,
            "required": [each for each, _ in chosen[: chance.randint(1, 2)]],
        },
    }


def _described(name: str, schema: Schema, chance: Random) -> Schema:
    return {**schema, "description": chance.choice(_DESCRIPTIONS).format(what=name)}


def arguments_for(definition: Schema) -> dict[str, Any]:
    """Return values for the required members of a definition."""
    values = {"string": "amber", "integer": 5, "boolean": True, "array": ["amber"], "object": {}}
    schema = definition["inputSchema"]
    found = {}
    for name in schema["required"]:
        request = schema["properties"][name]
        found[name] = request["enum"][0] if "enum" in request else values[request["type"]]
    return found


class Answering:
    """Replaces the servers: accepts arguments that fit a tool's schema and returns ten records."""

    def __init__(self, tools: dict[str, list[Schema]]) -> None:
        self._tools = {(s, tool["name"]): tool for s, listed in tools.items() for tool in listed}
        self.effects: list[list[Any]] = []

    def call(self, server: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Answer one call. Raises `KeyError` for an unknown tool or a missing argument."""
        schema = self._tools[server, tool]["inputSchema"]
        for name in (*schema["required"], *arguments):
            arguments[name], schema["properties"][name]
        self.effects.append([server, tool])
        chance = Random(f"{server}{tool}")
        items = [{"id": f"{tool}-{n}", "title": " ".join(chance.sample(_WORDS, 4)), "url":
                  f"https://{server}.example/{chance.randrange(10**6)}", "points": n * 7}
                 for n in range(ITEMS)]  # fmt: skip
        return {"items": items, "total": ITEMS}
