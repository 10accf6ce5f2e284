"""Commands of operators for single servers: entries of tb_config that every executor watches."""

from toolbus_common.contracts.base import Message

SERVER_COMMAND_PREFIX = "steered."  # followed by the server's name


class ServerCommand(Message):
    """The commands in effect for one server, independent of the configuration.

    A `drained` server receives no new calls. `resets` is the number of requested reconnections.
    `at` is in seconds since the epoch, and `by` is the operator.
    """

    drained: bool = False
    resets: int = 0
    by: str = ""
    at: float = 0.0
