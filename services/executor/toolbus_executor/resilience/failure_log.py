"""Recent failures of one server, and the texts of their reasons."""

import logging
import re
from collections import deque
from collections.abc import Callable
from time import time
from typing import Any

from toolbus_common.errors import (
    ToolbusError,
    UpstreamDeadError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from toolbus_common.privacy.redaction import struck
from toolbus_common.web.json_view import visible
from toolbus_executor.known_secrets import KnownSecrets

log = logging.getLogger(__name__)

MAX_ENTRIES = 5
MAX_REASON = 500  # characters of a reason
_OF_THE_SERVER = (UpstreamDeadError, UpstreamInvalidError, UpstreamTimeoutError)


class GarbageError(UpstreamInvalidError):
    """A reply that is not a valid protocol message. It counts as a failure of the server.

    Other invalid replies, such as a result that is too large, can concern a single call. They are
    not counted as failures, so that one caller cannot open the breaker for all callers.
    """


class MisfitError(UpstreamInvalidError):
    """A result that violates the tool's schema. The reason contains names from the result."""


def shared_reason(error: ToolbusError) -> str:
    """Return an error's reason for readers other than the caller, without the server's text.

    The server's text can contain secrets or data of another caller.
    """
    if type(error) is UpstreamRefusedError:  # subclasses have texts of Toolbus
        return f"The upstream returned the JSON-RPC error {error.data.get('upstream_code')}."
    if isinstance(error, MisfitError):
        return "A result of the upstream violates the outputSchema of its tool."
    return error.reason


def why(error: BaseException) -> str:
    """Return the reason of any error, without text of a server; empty if the error has no text."""
    return shared_reason(error) if isinstance(error, ToolbusError) else str(error)


def loss_reason(server: str, error: ToolbusError, secrets: Callable[[], KnownSecrets]) -> str:
    """Return the reason why a server is unavailable.

    If the server rejected a request, log the server's text with the secrets redacted.
    """
    if type(error) is UpstreamRefusedError:
        (text,) = secrets().struck([error.reason])
        log.warning(
            "server.request_rejected", extra={"server": server, "text": visible(struck(text))}
        )
    return with_pronoun(shared_reason(error))


def is_failure(error: ToolbusError) -> bool:
    """Return whether an error means that the server is down or defective."""
    return isinstance(error, UpstreamDeadError | UpstreamTimeoutError | GarbageError)


def with_name(reason: str, server: str) -> str:
    """Return the reason with the server's name after the first "The upstream". Idempotent."""
    named = f"The upstream {server}"
    if re.search(rf"{re.escape(named)}(?![\w-])", reason):
        return reason
    return reason.replace("The upstream", named, 1)


def with_pronoun(reason: str) -> str:
    """Return the reason with the first "The upstream" replaced by "It" or "Its"."""
    return re.sub(r"The upstream('s)?", lambda found: "Its" if found[1] else "It", reason, count=1)


class FailureLog:
    """The latest failures of one server.

    Calls that were rejected before sending are not included.
    """

    def __init__(self) -> None:
        self._latest: deque[dict[str, Any]] = deque(maxlen=MAX_ENTRIES)

    @property
    def last(self) -> str:
        """The reason of the latest failure; empty if there is none."""
        return str(self._latest[-1]["reason"]) if self._latest else ""

    def note(self, error: ToolbusError) -> None:
        """Record the error of a failed call, if the server caused it."""
        if isinstance(error, _OF_THE_SERVER):
            failure = {
                "at": time(),
                "code": error.code,
                "reason": shared_reason(error)[:MAX_REASON],
            }
            self._latest.append(failure)

    def recent(self) -> list[dict[str, Any]]:
        """Return the recorded failures; the oldest is first."""
        return list(self._latest)
