"""Which call a message belongs to that names neither its call nor a task.

The handshake revisions give log messages and requests of a server no call's name: on a pipe, or on
the stream beside the answers, they can only be attributed by what else is known of the connection.
"""

import logging
from collections.abc import Mapping
from time import monotonic

from toolbus_common.observability.metrics import UPSTREAM_DROPPED
from toolbus_executor.upstreams.call_channel import Caller, Owner

log = logging.getLogger(__name__)

QUIET_SECONDS = 30.0  # how long a connection is watched after its server spoke out of turn
LOG_SECONDS = 10.0  # between two lines of the log about one server
_MOST_UNANSWERED = 1000


class Attribution:
    """The history of one connection.

    A message belongs to the only call under way, if it can be nobody else's: no other principal
    ever called on this connection, so nothing that goes on in the server is on another's behalf;
    every call before ended with its answer; and the server was not heard lately while no call was
    under way. Otherwise it may be a late word of a call that is gone.
    """

    def __init__(self) -> None:
        self._owners: set[Owner] = set()
        self._ended = False  # whether any call has
        self._restless_until = 0.0
        self._unanswered: dict[int, float] = {}  # calls given up, until when they count

    def begin(self, caller: Caller) -> None:
        """Take note of a call; of the principals two tell as much as all."""
        if len(self._owners) < 2:  # noqa: PLR2004
            self._owners.add(caller.owner)

    def end(self, number: int, *, answered: bool) -> None:
        """Take note of the end of a call; one that was given up may go on in the server."""
        self._ended = True
        if not answered and len(self._unanswered) < _MOST_UNANSWERED:
            self._unanswered[number] = monotonic() + QUIET_SECONDS

    def answered(self, number: object) -> None:
        """Take note of an answer nobody waits for: that call is over in the server, too."""
        if type(number) is int:
            self._unanswered.pop(number, None)

    def owner(self, callers: Mapping[int, Caller]) -> Caller | None:
        """Return the call that a message without a name belongs to, if that is certain."""
        if not callers and self._ended:
            self._restless_until = monotonic() + QUIET_SECONDS
        if len(callers) != 1:
            return None
        (caller,) = callers.values()
        return caller if self._owners <= {caller.owner} and not self._lingers() else None

    def asker(self, callers: Mapping[int, Caller], *, one_client: bool) -> Caller | None:
        """Return the call that a request without a name is for.

        All calls on a connection of one client session are that client's, so any of them can take
        the question to it. Elsewhere it is the only call whose tool may ask.
        """
        likely = [each for each in callers.values() if each.likely]
        if one_client:
            return likely[-1] if likely else None
        likely = likely or list(callers.values())
        if not callers and self._ended:
            self._restless_until = monotonic() + QUIET_SECONDS
        if len(likely) == 1:
            (caller,) = likely
            return caller if self._owners <= {caller.owner} and self.certain else None
        for each in likely:
            each.suspect = True
        return None

    @property
    def certain(self) -> bool:
        """Whether no call that is gone may still be at work in the server."""
        return not self._lingers()

    def _lingers(self) -> bool:
        now = monotonic()
        if self._unanswered:
            self._unanswered = {n: until for n, until in self._unanswered.items() if until > now}
        return bool(self._unanswered) or now < self._restless_until


class Dropped:
    """Counts a server's messages that were dropped, and logs that there were some, not what."""

    def __init__(self, server: str) -> None:
        self.counts: dict[str, int] = {}
        self._server = server
        self._log_at = 0.0

    def __call__(self, kind: str) -> None:
        """Take note of one more message of this kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        UPSTREAM_DROPPED.labels(self._server, kind).inc()
        now = monotonic()
        if now >= self._log_at:
            self._log_at = now + LOG_SECONDS
            told = {"server": self._server, "kind": kind, "dropped": dict(self.counts)}
            log.warning("upstream.message_dropped", extra=told)
