"""Attribution of server messages that contain neither a call's id nor a task's id.

In the session-based revisions, log messages and requests of a server contain no call id. On a pipe,
or on the stream for messages outside of responses, only the history of the connection shows which
call such a message belongs to.
"""

import logging
from collections.abc import Mapping
from time import monotonic

from toolbus_common.observability.metrics import UPSTREAM_DROPPED
from toolbus_executor.upstreams.call_channel import Caller, Owner

log = logging.getLogger(__name__)

QUIET_SECONDS = 30.0  # no attribution for this time after a message outside of any call
LOG_SECONDS = 10.0  # minimum interval of log lines about one server
_MAX_UNANSWERED = 1000


class Attribution:
    """The history of one connection, to attribute messages to calls.

    A message belongs to the only call in progress if three conditions are true:

    - No other principal has ever used this connection, so nothing in the server runs for another
      principal.
    - Every earlier call ended with its response.
    - The server has not recently sent a message while no call was in progress.

    Otherwise the message may be a late message of an abandoned call.
    """

    def __init__(self) -> None:
        self._owners: set[Owner] = set()
        self._ended = False  # whether any call has ended
        self._restless_until = 0.0
        # Abandoned calls, each with the time until which it may still run.
        self._unanswered: dict[int, float] = {}

    def begin(self, caller: Caller) -> None:
        """Record the start of a call. After calls of two principals, attribution is impossible."""
        if len(self._owners) < 2:  # noqa: PLR2004
            self._owners.add(caller.owner)

    def end(self, number: int, *, answered: bool) -> None:
        """Record the end of a call. `answered` is false if the call may still run in the server."""
        self._ended = True
        if not answered and len(self._unanswered) < _MAX_UNANSWERED:
            self._unanswered[number] = monotonic() + QUIET_SECONDS

    def answered(self, number: object) -> None:
        """Record a late response to an abandoned call. The call has then ended in the server."""
        if type(number) is int:
            self._unanswered.pop(number, None)

    def owner(self, callers: Mapping[int, Caller]) -> Caller | None:
        """Return the call that a message without an id belongs to; None if that is not certain."""
        if not callers and self._ended:
            self._restless_until = monotonic() + QUIET_SECONDS
        if len(callers) != 1:
            return None
        (caller,) = callers.values()
        return caller if self._owners <= {caller.owner} and not self._lingers() else None

    def requesting_call(self, callers: Mapping[int, Caller], *, one_client: bool) -> Caller | None:
        """Return the call that a request without an id belongs to; None if that is not certain.

        If the connection belongs to one client session (`one_client`), any of its calls can forward
        the request. Otherwise it is the only call during which the server may send requests.
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
        """Whether all earlier calls have certainly ended in the server."""
        return not self._lingers()

    def _lingers(self) -> bool:
        now = monotonic()
        if self._unanswered:
            self._unanswered = {n: until for n, until in self._unanswered.items() if until > now}
        return bool(self._unanswered) or now < self._restless_until


class Dropped:
    """Counter of the dropped messages of a server. It logs the counts, but no contents."""

    def __init__(self, server: str) -> None:
        self.counts: dict[str, int] = {}
        self._server = server
        self._log_at = 0.0

    def __call__(self, kind: str) -> None:
        """Count a dropped message of this kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        UPSTREAM_DROPPED.labels(self._server, kind).inc()
        now = monotonic()
        if now >= self._log_at:
            self._log_at = now + LOG_SECONDS
            about = {"server": self._server, "kind": kind, "dropped": dict(self.counts)}
            log.warning("upstream.message_dropped", extra=about)
