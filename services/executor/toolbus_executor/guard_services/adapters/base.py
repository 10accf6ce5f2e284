"""Interface of the adapters: what a service checks, and what it found."""

import re
from collections.abc import Sequence
from math import isfinite
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Struct

from toolbus_common.contracts.guards import CheckedCall
from toolbus_common.errors import UpstreamInvalidError

MAX_FINDINGS = 64
LONGEST_NAME = 64  # characters
# Content of these phases comes from a model; that of the other phases goes to a model.
FROM_MODEL = frozenset({"arguments", "completions"})
_UNNAMED = re.compile(r"[^A-Za-z0-9_.:/+-]+")


class Limits(Struct, frozen=True):
    """The limits of one request to a service.

    `longest` is the maximum number of characters in one text, `total` is the maximum in all texts,
    and `most` is the maximum number of texts. If texts are `joined`, each sent text consists of
    several texts of the document.
    """

    longest: int
    total: int
    most: int = 1
    joined: bool = True


class CheckedContent(Struct, frozen=True):
    """What a service checks: the phase, the call, and the whole document."""

    phase: str
    call: CheckedCall
    content: bytes = b""


class Span(Struct, frozen=True):
    """A place in one of the sent texts that contains what a rule found."""

    rule: str
    text: int
    start: int
    end: int


class ServiceFindings(Struct, frozen=True):
    """What a service found in the sent texts.

    `rules` are the names of the findings with their scores. `spans` are their places. `replaced`
    are the sent texts without the findings; None if the service did not return such texts.
    `content` is the document without the findings; unset if the service did not return one. A
    rule that is not in `located` was found, but its place is unknown.
    """

    rules: dict[str, float] = {}
    spans: tuple[Span, ...] = ()
    replaced: tuple[str, ...] | None = None
    located: frozenset[str] = frozenset()
    content: Any = UNSET
    version: str = ""


NOTHING = ServiceFindings()


class ServiceAdapter(Protocol):
    """The API of one service. `depends_on_call` is set if it receives more than the texts."""

    @property
    def limits(self) -> Limits:
        """The limits of one request."""
        ...

    @property
    def depends_on_call(self) -> bool:
        """Whether the service receives the names of the server, the tool and the customer."""
        ...

    async def check(
        self, checked: CheckedContent, texts: Sequence[str], seconds: float
    ) -> ServiceFindings:
        """Ask the service about these texts, with one request.

        Raises:
            UpstreamDeadError: the service is unavailable.
            UpstreamInvalidError: it rejected the request, or its response is invalid.
            TimeoutError: it did not respond in time.

        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def rule_name(*parts: object) -> str:
    """Return the name of a finding, in a restricted form that keeps content out of events."""
    name = _UNNAMED.sub("_", ":".join(str(part) for part in parts if part)).strip("_:")
    return name[:LONGEST_NAME] or "finding"


def score_of(value: object, default: float = 1.0) -> float:
    """Return a score from 0 to 1; the default if the service sent none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return default
    return min(1.0, max(0.0, float(value)))


def member(value: Any, *names: str) -> Any:
    """Return a nested member of a JSON object; None if there is none."""
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a JSON list; an empty list for null. Raises `UpstreamInvalidError`."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise invalid("a list contains something else than objects")
    return value


def occurrences(rule: str, texts: Sequence[str], match: str) -> list[Span]:
    """Return all places of a matched text."""
    spans: list[Span] = []
    if match:
        for number, text in enumerate(texts):
            at = text.find(match)
            while at >= 0:
                spans.append(Span(rule, number, at, at + len(match)))
                at = text.find(match, at + len(match))
    return spans


def invalid(reason: str) -> UpstreamInvalidError:
    """Return the error for an invalid response. `reason` must not contain checked content."""
    return UpstreamInvalidError(
        f"The response of the guard service is invalid: {reason}. Check the guard's 'kind' and "
        "'url'."
    )


def decoded(raw: bytes) -> Any:
    """Return a decoded response. Raises `UpstreamInvalidError`."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid("it is not JSON") from error
