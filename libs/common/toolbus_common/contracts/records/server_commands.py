"""Operator commands for single servers: entries of tb_config, watched by every executor."""

from toolbus_common.contracts.base import Message

SERVER_COMMAND_PREFIX = "steered."  # followed by the server's name


class ServerCommand(Message):
    """The commands in effect for one server, independent of its configuration.

    `drained`: it receives no new calls. `resets` counts the requested reconnections. `at` is in
    seconds since the epoch, `by` the operator.
    """

    drained: bool = False
    resets: int = 0
    by: str = ""
    at: float = 0.0
