"""The check of content by a guard that asks another service. Executor makes these requests."""

from typing import Protocol

from pydantic import Field

from toolbus_common.contracts.base import Plain


class CheckedCall(Plain):
    """The call whose content is checked. `deadline` is in seconds since the epoch.

    `principal_id` and `run` identify the agent run in which equal values have equal placeholders.
    """

    call_id: str
    customer: str
    key: str
    server: str
    tool: str
    deadline: float
    principal_id: str = ""
    run: str = ""


class ServiceVerdict(Plain):
    """What a service found in the content.

    `findings` are the names of what it found; they are empty if it found nothing. `score` is the
    highest score. `content` is the service's own version of the JSON document without the findings;
    empty if it has none. `version` is the version of the service or its model, if it names one.
    """

    findings: tuple[str, ...] = ()
    score: float = 0.0
    content: str = Field(default="", repr=False)
    version: str = ""
    cached: bool = False


class ServiceCheck(Protocol):
    """A function that asks the service of a guard. Raises `ToolbusError` if it cannot be asked."""

    async def __call__(
        self, guard: str, phase: str, call: CheckedCall, content: bytes
    ) -> ServiceVerdict:
        """Return what the service found."""
        ...
