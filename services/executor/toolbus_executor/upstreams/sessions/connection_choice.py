"""Choice of a connection for a call during which the server can send requests without a call id."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_executor.mcp_messages.client_capabilities import kinds_of
from toolbus_executor.upstreams.call_channel import Caller

MAY_ASK = frozenset({TOOLS_CALL, "prompts/get", "resources/read", "tasks/result"})
MAX_KNOWN = 10_000  # recorded tools


class ExclusiveConnections:
    """Connections for calls during which the server can send requests, one call per connection.

    A request on a pipe or on an HTTP+SSE stream contains no call id. It can be attributed only if
    exactly one call in progress can have caused it. The connections of an owner are numbered. Calls
    that need no exclusive connection use number 0. After a call of a tool has completed without a
    request, the tool needs no exclusive connection until the server sends a request for it.
    """

    def __init__(self) -> None:
        self._sends_requests: dict[str, bool] = {}  # by tool: whether it has sent requests
        self._taken: set[tuple[object, int]] = set()

    def needed(self, call: CallAdmitted) -> bool:
        """Return whether the server may send requests during this call."""
        return self._sends_requests.get(_name_of(call), True) and call.method in MAY_ASK

    def sends_requests(self, call: CallAdmitted) -> bool:
        """Return whether the server has sent requests during such calls."""
        return self._sends_requests.get(_name_of(call), False)

    @contextmanager
    def taken(self, owner: object, certain: Callable[[int], bool]) -> Iterator[int]:
        """Reserve the owner's first free connection, and yield its number.

        `certain` returns whether a server request on the connection with this number is certain
        to belong to the call; other connections are skipped.
        """
        number = 0
        while (owner, number) in self._taken or not certain(number):
            number += 1
        self._taken.add((owner, number))
        try:
            yield number
        finally:
            self._taken.discard((owner, number))

    def learn(self, call: CallAdmitted, caller: Caller, *, completed: bool) -> None:
        """Record whether the server sent requests during a call whose caller supports them."""
        name = _name_of(call)
        if caller.suspect:
            self._note(name, sends_requests=True)
        elif completed and kinds_of(call.capabilities):
            self._note(name, sends_requests=self._sends_requests.get(name, False))

    def _note(self, name: str, *, sends_requests: bool) -> None:
        if name in self._sends_requests or len(self._sends_requests) < MAX_KNOWN:
            self._sends_requests[name] = sends_requests


def _name_of(call: CallAdmitted) -> str:
    return f"{call.method} {call.tool}" if call.method == TOOLS_CALL else call.method
