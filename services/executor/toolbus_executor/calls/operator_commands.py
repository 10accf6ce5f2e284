"""Operator commands for servers: drain, resume and reset."""

import logging

from msgspec import DecodeError
from pydantic import ValidationError

from toolbus_common.contracts import SERVER_COMMAND_PREFIX, CallAdmitted, ServerCommand
from toolbus_common.errors import ServerDrainedError
from toolbus_common.nats.kv_bucket import Change
from toolbus_executor.upstreams.suspended_calls import answers_in

log = logging.getLogger(__name__)
_NO_COMMAND = ServerCommand()


class OperatorCommands:
    """The newest operator command for each server, read from the configuration bucket."""

    def __init__(self) -> None:
        self._commands: dict[str, ServerCommand] = {}
        self.on_change = _no_listener

    def of(self, server: str) -> ServerCommand:
        """Return the newest command for a server."""
        return self._commands.get(server, _NO_COMMAND)

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the configuration bucket."""
        if change is None or not change.key.startswith(SERVER_COMMAND_PREFIX):
            return
        server = change.key.removeprefix(SERVER_COMMAND_PREFIX)
        try:
            command = ServerCommand.decode(change.value) if change.value else _NO_COMMAND
        except (ValidationError, DecodeError, ValueError):
            log.error("operator_command.unreadable", extra={"server": server})  # noqa: TRY400
            return
        self._commands[server] = command
        self.on_change()


def reject_if_drained(call: CallAdmitted) -> None:
    """Reject a new call of a drained server.

    Calls that continue an earlier call (input responses, tasks) are accepted.

    Raises:
        ServerDrainedError: the call is new.

    """
    if call.method.startswith("tasks/") or (call.extra and answers_in(call.extra)[0]):
        return
    raise ServerDrainedError(
        f"An operator drained the server {call.server!r}; retry later.",
        sent=False,
        server=call.server,
    )


def _no_listener() -> None:
    """Ignore a change, because no listener is set yet."""
