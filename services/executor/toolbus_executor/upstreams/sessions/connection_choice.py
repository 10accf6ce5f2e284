"""Choose a connection for a call whose server may ask its caller without naming the call."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_executor.mcp_messages.client_capabilities import kinds_of
from toolbus_executor.upstreams.call_channel import Caller

MAY_ASK = frozenset({TOOLS_CALL, "prompts/get", "resources/read", "tasks/result"})
MOST_KNOWN = 10_000  # tools


class Turns:
    """Calls that may ask, one at a time on each connection of an owner.

    A request on a pipe or on the stream of HTTP+SSE names no call, so it can be attributed only if
    a single call under way can be meant. Connections of an owner are numbered; number 0 is the one
    that calls use that need no turn. A tool that completed a call without asking needs none until
    it asks.
    """

    def __init__(self) -> None:
        self._asks: dict[str, bool] = {}  # tools that were called, and whether they ask
        self._taken: set[tuple[object, int]] = set()

    def needed(self, call: CallAdmitted) -> bool:
        """Return whether the server may ask during this call, as far as is known."""
        return self._asks.get(_name_of(call), True) and call.method in MAY_ASK

    def asks(self, call: CallAdmitted) -> bool:
        """Return whether the server is known to ask during such calls."""
        return self._asks.get(_name_of(call), False)

    @contextmanager
    def taken(self, owner: object, certain: Callable[[int], bool]) -> Iterator[int]:
        """Hold the first free connection of an owner that is in a certain state; its number."""
        number = 0
        while (owner, number) in self._taken or not certain(number):
            number += 1
        self._taken.add((owner, number))
        try:
            yield number
        finally:
            self._taken.discard((owner, number))

    def learn(self, call: CallAdmitted, caller: Caller, *, completed: bool) -> None:
        """Take note of whether the server asked during a call whose caller can be asked."""
        name = _name_of(call)
        if caller.suspect:
            self._note(name, asks=True)
        elif completed and kinds_of(call.capabilities):
            self._note(name, asks=self._asks.get(name, False))

    def _note(self, name: str, *, asks: bool) -> None:
        if name in self._asks or len(self._asks) < MOST_KNOWN:
            self._asks[name] = asks


def _name_of(call: CallAdmitted) -> str:
    return f"{call.method} {call.tool}" if call.method == TOOLS_CALL else call.method
