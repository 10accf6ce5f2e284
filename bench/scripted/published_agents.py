"""Two agents for a published task. Both know its tools beforehand; one must find their stubs.

The agent without programs gets every definition and makes all its calls in one turn, its cheapest
way. The other searches with the task's own words, reads a server's file for tools that the search
did not return, reads the documentation of each tool it uses, and sends one program.
"""

import json
from typing import Any

from scripted.agents import DOCS, EXECUTE, LIST, READ, SEARCH, seen, together, turn
from scripted.context import Conversation
from scripted.mcp_client import Speaker
from scripted.published import PublishedTask, arguments_for
from toolbus_codemode.catalog.identifiers import distinct

Schemas = dict[str, list[dict[str, Any]]]
FIRST = 5  # records printed at the end


def without(task: PublishedTask, tools: Schemas, speaker: Speaker, talk: Conversation) -> bool:
    """Run the agent with every definition; return whether each call was answered."""
    talk.add(task.query)
    talk.request()
    result = together(
        [(each, arguments_for(_tool(tools, each))) for each in task.tools], speaker, talk
    )
    talk.request()
    return not any(failed for _, failed in result)


def with_programs(
    task: PublishedTask, tools: Schemas, speaker: Speaker, talk: Conversation
) -> bool:
    """Run the agent that searches, reads and sends one program; return whether it succeeded."""
    talk.add(task.query)
    turn(talk, speaker, [(SEARCH, {"query": task.query})])
    paths = {each: _path(tools, each) for each in task.tools}
    missing = sorted({path.partition(".")[0] for path in paths.values() if not seen(path, talk)})
    if missing:
        turn(talk, speaker, [(LIST, {})])
        turn(talk, speaker, [(READ, {"fileName": f"{each}.pyi"}) for each in missing])
    manuals = [
        dict(zip(("server", "tool"), path.split("."), strict=True)) for path in paths.values()
    ]
    turn(talk, speaker, [(DOCS, manual) for manual in manuals])
    if not all(seen(path, talk) for path in paths.values()):
        return False
    ((text, failed),) = turn(talk, speaker, [(EXECUTE, {"code": _program(paths, tools)})])
    talk.request()
    return not failed and len(json.loads(text)) == len(task.tools)


def found_by_search(task: PublishedTask, tools: Schemas, talk: Conversation) -> int:
    """Return how many of the task's tools the search returned."""
    first = Conversation(0, received=talk.received[:1])
    return sum(seen(_path(tools, each), first) for each in task.tools)


def _program(paths: dict[str, str], tools: Schemas) -> str:
    lines = ["result = {}"]
    for name, path in paths.items():
        given = ", ".join(f"{k}={v!r}" for k, v in arguments_for(_tool(tools, name)).items())
        lines.append(f'result["{path}"] = [r["title"] for r in {path}({given})["items"][:{FIRST}]]')
    return "\n".join(lines)


def _tool(tools: Schemas, name: str) -> dict[str, Any]:
    server, _, tool = name.partition("__")
    return next(each for each in tools[server] if each["name"] == tool)


def _path(tools: Schemas, name: str) -> str:
    """Return the name by which a program calls a tool."""
    server, _, tool = name.partition("__")
    spaces = {known: space for space, known in distinct(tools).items()}
    functions = {
        known: made for made, known in distinct([t["name"] for t in tools[server]]).items()
    }
    return f"{spaces[server]}.{functions[tool]}"
