"""Two agents for one task: one reads every definition, the other writes programs.

Neither is a model. Their turns are scripted; what they read, send and pay is measured.
"""

import json
import re
from typing import Any

from scripted.context import Conversation, written_call
from scripted.mcp_client import Speaker
from scripted.tasks import Task

SEARCH, DOCS, EXECUTE, LIST, READ = (
    "searchTools", "getToolDocs", "executeToolCode", "listToolFiles", "readToolFile",
)  # fmt: skip
_KEYS = re.compile(r"\[\"(\w+)\"\]")
_TOOLS = re.compile(r"\b([a-z]+)\.((?:list|get|search|create|update|delete|count|archive)_\w+)")
Ask = tuple[str, dict[str, Any]]


class UnreadError(Exception):
    """A program uses a name that its agent has not read: the script would not be plausible."""


def classic(task: Task, speaker: Speaker, talk: Conversation) -> Any:
    """Run the agent with every definition in every request and each result in the conversation."""
    talk.add(task.question)
    agent, results = task.classic(), None
    while True:
        talk.request()
        try:
            request = agent.send(results)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value
        results = [_read(*each) for each in together(request, speaker, talk)]


def coded(task: Task, speaker: Speaker, talk: Conversation) -> Any:
    """Run the agent that searches, reads what it needs, sends one program and corrects it."""
    talk.add(task.question)
    turn(talk, speaker, [(SEARCH, {"query": each, "limit": 4}) for each in task.family.searches])
    missing = sorted({path.partition(".")[0] for path in called(task) if not seen(path, talk)})
    if missing:  # tools that the search did not return are looked up by server
        turn(talk, speaker, [(LIST, {})])
        turn(talk, speaker, [(READ, {"fileName": f"{each}.pyi"}) for each in missing])
    manuals = [path.split(".") for path in task.family.manuals]
    turn(talk, speaker, [(DOCS, {"server": s, "tool": t}) for s, t in manuals])
    if task.family.slip:
        program(task.filled(task.family.slip), talk, speaker, slips=True)
    text, failed = program(task.filled(task.family.program), talk, speaker)
    talk.request()
    return None if failed else _value(text)


def program(
    code: str, talk: Conversation, speaker: Speaker, *, slips: bool = False
) -> tuple[str, bool]:
    """Send a program; unless it is a deliberate mistake, all its names must have been read."""
    if not slips:
        plausible(code, talk)
    ((text, failed),) = turn(talk, speaker, [(EXECUTE, {"code": code})])
    if slips and not failed:
        raise UnreadError(f"This was meant to fail:\n{code}")
    return text, failed


def turn(talk: Conversation, speaker: Speaker, calls: list[Ask]) -> list[tuple[str, bool]]:
    """Record one request to the model and the calls it answers with."""
    talk.request()
    return together(calls, speaker, talk)


def together(calls: list[Ask], speaker: Speaker, talk: Conversation) -> list[tuple[str, bool]]:
    """Make the calls of one turn and add their results to the conversation."""
    items = []
    for tool, arguments in calls:
        talk.add(written_call(tool, arguments))
        items.append(speaker.call(tool, arguments))
    for text, _ in items:
        talk.receive(text)
    return items


def plausible(code: str, talk: Conversation) -> None:
    """Check that a program uses only tools and fields from answers that this agent has received."""
    for server, tool in _TOOLS.findall(code):
        if not seen(f"{server}.{tool}", talk):
            raise UnreadError(f"{server}.{tool} was read nowhere")
    for key in _KEYS.findall(code):
        if (
            not any(re.search(rf"\b{key}\b", text) for text in talk.received)
            and f'"{key}":' not in code
        ):
            raise UnreadError(f"the field {key} was read nowhere")


def seen(path: str, talk: Conversation) -> bool:
    """Return whether a tool's stub was in an answer: by its path, or in its server's file."""
    space, _, function = path.partition(".")
    return any(
        re.search(rf"^{space}\.{function}\(", text, re.MULTILINE)
        or (f"# call as {space}." in text and re.search(rf"^{function}\(", text, re.MULTILINE))
        for text in talk.received
    )


def called(task: Task) -> set[str]:
    """Return the tools of a task's program."""
    return {".".join(found) for found in _TOOLS.findall(task.family.program)}


def _read(text: str, failed: bool) -> Any:  # noqa: FBT001
    return None if failed else json.loads(text)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
