"""What operators ask of servers beside what they declare: to be drained, or met anew."""

import logging

from msgspec import DecodeError
from pydantic import ValidationError

from toolbus_common.contracts import SERVER_COMMAND_PREFIX, CallAdmitted, ServerCommand
from toolbus_common.errors import ServerDrainedError
from toolbus_common.nats.kv_bucket import Change
from toolbus_executor.upstreams.suspended_calls import brought

log = logging.getLogger(__name__)
_AS_DECLARED = ServerCommand()


class Steering:
    """The newest word about each server. It outlives executors, and new ones hear it first."""

    def __init__(self) -> None:
        self._told: dict[str, ServerCommand] = {}
        self.on_change = _nobody

    def of(self, server: str) -> ServerCommand:
        """What is asked of a server."""
        return self._told.get(server, _AS_DECLARED)

    def hear(self, change: Change | None) -> None:
        """Take one change of the configuration's bucket."""
        if change is None or not change.key.startswith(SERVER_COMMAND_PREFIX):
            return
        server = change.key.removeprefix(SERVER_COMMAND_PREFIX)
        try:
            told = ServerCommand.decode(change.value) if change.value else _AS_DECLARED
        except (ValidationError, DecodeError, ValueError):
            log.error("steering.unreadable", extra={"server": server})  # noqa: TRY400
            return
        self._told[server] = told
        self.on_change()


def refuse_new(call: CallAdmitted) -> None:
    """Refuse a call of a drained server unless it goes on with one begun before.

    That is one with answers to questions, or about a task. Raises `ServerDrainedError`.
    """
    if call.method.startswith("tasks/") or (call.extra and brought(call.extra)[0]):
        return
    raise ServerDrainedError(
        f"An operator lets {call.server} have no new calls for now; retry later.",
        sent=False,
        server=call.server,
    )


def _nobody() -> None:
    """Nobody wants to know yet."""
