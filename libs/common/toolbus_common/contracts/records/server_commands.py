"""What operators ask of single servers: entries of tb_config, heard by every executor."""

from toolbus_common.contracts.base import Message

SERVER_COMMAND_PREFIX = "steered."  # and the server's name


class ServerCommand(Message):
    """How one server is steered, whatever is declared of it.

    `drained`: it is given no new calls. `resets` counts how often it was to be met anew. `at` is
    seconds since the epoch, `by` the operator.
    """

    drained: bool = False
    resets: int = 0
    by: str = ""
    at: float = 0.0
