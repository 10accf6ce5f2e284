"""The latest failures of one server, for whoever asks what is wrong with it."""

import logging
import re
from collections import deque
from collections.abc import Callable
from time import time
from typing import Any

from toolbus_common.errors import (
    ToolbusError,
    UpstreamDeadError,
    UpstreamFaultError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from toolbus_common.privacy.known_secrets import KnownSecrets
from toolbus_common.privacy.redaction import struck
from toolbus_common.web.json_view import visible

log = logging.getLogger(__name__)

KEPT = 5
LONGEST = 500  # characters of a reason
_OF_THE_SERVER = (UpstreamDeadError, UpstreamFaultError, UpstreamTimeoutError)


class GarbageError(UpstreamFaultError):
    """What came is no message, or no answer: the server has lost its senses.

    Other faults may be of one call alone, such as a result that is too large, and say nothing of
    the server: else whoever calls could open its breaker for everybody.
    """


class MisfitError(UpstreamFaultError):
    """A result is not what its server declares. The reason names members of that result."""


def shared_reason(error: ToolbusError) -> str:
    """Return why, for others than the caller of that very call: without the server's own words.

    Those may repeat what another caller told it, or what it was given.
    """
    if type(error) is UpstreamRefusedError:  # what is derived from it is in words of ours
        return f"The upstream answered with JSON-RPC error {error.data.get('upstream_code')}."
    if isinstance(error, MisfitError):
        return "A result of the upstream breaks the outputSchema of its tool."
    return error.reason


def why(error: BaseException) -> str:
    """Return the same of any error; empty where it says nothing."""
    return shared_reason(error) if isinstance(error, ToolbusError) else str(error)


def lost_by(server: str, error: ToolbusError, secrets: Callable[[], KnownSecrets]) -> str:
    """Return why a server cannot be used; its own words are logged for operators, struck."""
    if type(error) is UpstreamRefusedError:
        (said,) = secrets().struck([error.reason])
        log.warning("server.refused", extra={"server": server, "said": visible(struck(said))})
    return with_pronoun(shared_reason(error))


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
            told = {"at": time(), "code": error.code, "reason": shared_reason(error)[:LONGEST]}
            self._latest.append(told)

    def told(self) -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        return list(self._latest)
