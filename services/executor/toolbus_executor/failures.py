"""The latest failures of one server, for whoever asks what is wrong with it."""

import re
from collections import deque
from time import time
from typing import Any

from toolbus_common.errors import (
    ToolbusError,
    UpstreamDeadError,
    UpstreamFaultError,
    UpstreamTimeoutError,
)

KEPT = 5
LONGEST = 500  # characters of a reason
_OF_THE_SERVER = (UpstreamDeadError, UpstreamFaultError, UpstreamTimeoutError)


class GarbageError(UpstreamFaultError):
    """What came is no message, or no answer: the server has lost its senses.

    Other faults may be of one call alone, such as a result that is too large, and say nothing of
    the server: else whoever calls could open its breaker for everybody.
    """


def is_failure(error: ToolbusError) -> bool:
    """Whether it says that the server is not there, or not itself."""
    return isinstance(error, UpstreamDeadError | UpstreamTimeoutError | GarbageError)


def with_name(reason: str, server: str) -> str:
    """Return the reason with the server's name after its first "The upstream", once."""
    named = f"The upstream {server}"
    if re.search(rf"{re.escape(named)}(?![\w-])", reason):
        return reason
    return reason.replace("The upstream", named, 1)


def with_pronoun(reason: str) -> str:
    """Return the reason with "It" or "Its" for its first "The upstream"."""
    return re.sub(r"The upstream('s)?", lambda found: "Its" if found[1] else "It", reason, count=1)


class Failures:
    """What the server did wrong last. A call refused on its way there is no failure of its own."""

    def __init__(self) -> None:
        self._latest: deque[dict[str, Any]] = deque(maxlen=KEPT)

    @property
    def last(self) -> str:
        """The latest reason; empty if there was none."""
        return str(self._latest[-1]["reason"]) if self._latest else ""

    def note(self, error: ToolbusError) -> None:
        """Take note of a failed call."""
        if isinstance(error, _OF_THE_SERVER):
            told = {"at": time(), "code": error.code, "reason": error.reason[:LONGEST]}
            self._latest.append(told)

    def told(self) -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        return list(self._latest)
