"""Argument and report of a driver; only the standard library.

A driver prints one line of JSON for each action. An action without an API in its client has a
reason as a string in the driver's table instead of a function.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ACTIONS = (
    "list", "call", "progress", "elicitation", "sampling", "read", "subscribe", "prompt",
    "completion", "task", "cancellation",
)  # fmt: skip
OK, UNSUPPORTED, FAILED = "ok", "unsupported by client", "failed"
ACTION_SECONDS = 25.0
CORE = frozenset({"test_simple_text", "test_image_content", "test_elicitation", "test_sleep"})
STATIC = "test://static-text"
STATIC_TEXT = "This is the content of the static text resource."
WATCHED = "test://watched-resource"
COMPLETED = ["paris", "park", "party"]
START_SECONDS = 1.0  # until a sleeping call has reached its server
LONG_SECONDS = 10

Play = Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Given:
    """The driver's only argument, JSON."""

    endpoint: str
    key: str
    server: str
    nonce: str
    family: str
    actions: tuple[str, ...] = ACTIONS
    flavour: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that a client must send."""
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def question(self) -> str:
        """The message of elicitation and sampling."""
        return f"What is {self.nonce}?"

    def name(self, own: str) -> str:
        """Return a tool or prompt name as the gateway lists it."""
        return f"{self.server}__{own}"

    def uri(self, listed: Iterable[object], own: str) -> str:
        """Return a resource URI as the gateway lists it; equal URIs of two servers differ there."""
        shown = {str(uri) for uri in listed}
        marked = f"{self.server}+{own}"
        return marked if marked in shown else expect(own, own in shown, f"{own} is not listed")

    def check_names(self, names: Iterable[str]) -> str:
        """Check that the server's tools are listed, and no others once the prefix is removed."""
        prefix = self.name("")
        ours = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        missing = ", ".join(sorted(CORE - ours))
        return expect(f"{len(ours)} tools", not missing, f"not listed: {missing}")


def given() -> Given:
    """Parse the argument."""
    body = json.loads(sys.argv[1])
    return Given(**{**body, "actions": tuple(body.get("actions", ACTIONS))})


def expect(detail: str, holds: object, otherwise: object) -> str:
    """Return the detail, or fail with what was found instead."""
    if not holds:
        raise AssertionError(str(otherwise))
    return detail


def same(found: object, wanted: object, detail: str = "") -> str:
    """Fail unless both are equal."""
    return expect(detail or str(found)[:60], found == wanted, f"{found!r} instead of {wanted!r}")


def steps(progress: list[tuple[float, float | None]]) -> str:
    """Check the three steps of the progress tool, in order."""
    return same(progress, [(0, 100), (50, 100), (100, 100)], "0, 50, 100 of 100")


def tell(action: str, outcome: str, detail: str) -> None:
    """Print one line for the runner."""
    line: dict[str, Any] = {"action": action, "outcome": outcome, "detail": detail}
    print(json.dumps(line), flush=True)


async def perform(actions: Iterable[str], plays: Mapping[str, Play | str]) -> None:
    """Run each action separately; one that fails or hangs does not end the others."""
    for action in actions:
        play = plays[action]
        if isinstance(play, str):
            tell(action, UNSUPPORTED, play)
            continue
        try:
            async with asyncio.timeout(ACTION_SECONDS):
                detail = await play()
        except BaseException as error:  # noqa: BLE001  (clients end in cancellations of their own)
            tell(action, FAILED, _words(error))
        else:
            tell(action, OK, detail)


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
