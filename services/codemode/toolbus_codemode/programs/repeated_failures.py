"""Change the answer to a call that a caller repeats unchanged and without success."""

import re
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from time import monotonic

from toolbus_codemode.catalog.examples import example
from toolbus_codemode.catalog.namespace import Tool, ToolNamespace
from toolbus_codemode.catalog.tool_docs import manual
from toolbus_common.contracts import CallAdmitted
from toolbus_common.mcp.builtin_server import EXECUTE

MAX_REMEMBERED = 4_096  # answers; the oldest is forgotten first
SECONDS = 600.0  # how long an answer is remembered after its last repetition
UNCHANGED = 2  # calls with the usual answer
LONGEST_DOCUMENTATION = 3_000  # characters
LONGEST_SEARCHED = 4_000  # characters of the answer and of the arguments
_PATH = re.compile(r"\b(\w++)[./](\w++)")


class RepeatedFailures:
    """Count of identical answers by session, or by key without a session.

    Each replica counts alone: the changed answer comes later if replicas share a session's calls.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def answer(self, call: CallAdmitted, failure: str, namespace: ToolNamespace) -> str:
        """Count a failure and return its answer; after `UNCHANGED` failures, add documentation."""
        times = self._count(call, failure)
        if times <= UNCHANGED:
            return failure
        source = call.arguments.decode(errors="replace")
        tool = _nearest(f"{failure[:LONGEST_SEARCHED]}\n{source[:LONGEST_SEARCHED]}", namespace)
        repeated = f"This call failed {times} times in the same way. Do not send it again: "
        if tool is None:
            return f"{failure}\n\n{repeated}find the tool with searchTools, then call it."
        text = manual(tool)
        if len(text) > LONGEST_DOCUMENTATION:
            text = f"{text[:LONGEST_DOCUMENTATION]}… (the rest: getToolDocs)"
        return f"{failure}\n\n{repeated}write it as this documentation shows.\n\n{text}"

    def reading(self, call: CallAdmitted, found: str, namespace: ToolNamespace) -> str:
        """Count a call that only reads the catalogue, and return its answer.

        After `UNCHANGED` equal answers, add what to do next.
        """
        times = self._count(call, found)
        tool = _nearest(found[:LONGEST_SEARCHED], namespace) if times > UNCHANGED else None
        if tool is None:
            return found
        return (
            f"{found}\n\nYou have received this answer {times} times. Now call {EXECUTE} with a "
            f"program, such as: result = {example(tool)}"
        )

    def _count(self, call: CallAdmitted, failure: str) -> int:
        """Return how often this answer was given, this time included."""
        parts = (call.key_digest, call.session, call.tool, failure)
        digest = blake2b(call.arguments, digest_size=16)
        for part in parts:
            digest.update(b"\0" + part.encode(errors="replace"))
        name, now = digest.digest(), self._clock()
        times, until = self._counts.pop(name, (0, 0.0))
        times = times + 1 if now < until else 1
        self._counts[name] = times, now + SECONDS
        if len(self._counts) > MAX_REMEMBERED:
            self._counts.popitem(last=False)
        return times


def _nearest(text: str, namespace: ToolNamespace) -> Tool | None:
    """Return the first tool that the text names as `server.tool` or `server/tool`."""
    for found in _PATH.finditer(text):
        tool = namespace.spaces.get(found[1], {}).get(found[2])
        if tool is not None:
            return tool
    return None
