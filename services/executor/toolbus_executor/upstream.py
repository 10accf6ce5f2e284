"""What the executor needs of an upstream, whatever its transport and era."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from toolbus_common.contracts import CallAdmitted

OnProgress = Callable[[bytes], None]  # raw JSON of a progress notification's params


@dataclass(frozen=True, slots=True)
class Described:
    """What an upstream says of itself."""

    era: str
    version: str
    instructions: str = ""
    lists_change: bool = False


class Upstream(Protocol):
    """A connection to one server.

    `call` raises the errors of `toolbus_common.errors`; each has the attribute `sent` in its data
    set to False when provably nothing was written.
    """

    async def open(self) -> Described:
        """Probe the era, shake hands, and learn what the server is."""
        ...

    async def list_page(self, cursor: str | None) -> dict[str, Any]:
        """One page of tools/list."""
        ...

    async def call(
        self, call: CallAdmitted, seconds: float, on_progress: OnProgress | None
    ) -> bytes:
        """The raw JSON result of a tool. Raises `TimeoutError` after so many seconds."""
        ...

    async def wait_lost(self) -> str:
        """Wait until the connection is of no more use; a sentence why."""
        ...

    async def close(self) -> None:
        """Leave."""
        ...
