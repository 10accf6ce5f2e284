"""What all APIs share: turns of a run, the end of a run, and how each API reads and writes them."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec import Struct, field

from toolbus_common.errors import InvalidError, UpstreamInvalidError

# Prefix of the id of a call that the gateway has executed, in a response of the run.
EXECUTED = "tbx_"
MAX_CALLS = 128  # that a model may suggest in one response
_decode = msgspec.json.Decoder(dict[str, Any]).decode
encode = msgspec.json.Encoder().encode

Json = dict[str, Any]
IsAutomatic = Callable[[str], bool]


class Suggested(Struct):
    """A tool call that the model suggested; `arguments` is the JSON text."""

    call_id: str
    name: str
    arguments: str


class Result(Struct):
    """The result of an executed call: the text for the model."""

    text: str
    failed: bool = False


class Turn(Struct):
    """One response of the model, and the results of its calls by the ids of the calls.

    `content` is the part of the response that belongs to the conversation, `head` has the other
    fields of the response, and `usage` is its usage, all in the form of the API. `counted` means
    that its calls count against the limits of the run. `request_id` is the id of the model request.
    """

    head: Json
    content: list[Json]
    calls: list[Suggested] = field(default_factory=list)
    usage: Json = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    counted: bool = False
    request_id: str = ""


class Ending(Struct, frozen=True):
    """The end of a run: `pending` are the client's calls, and `note` names a reached limit."""

    run: str
    pending: frozenset[str] = frozenset()
    limit: str = ""
    note: str = ""

    @property
    def about(self) -> Json:
        """The member `toolbus` of the response."""
        return {"run": self.run, "limit": self.limit} if self.limit else {"run": self.run}


class RunStream(Protocol):
    """The streamed response of one run: the events of several responses of the model as one."""

    def begin_turn(self) -> None:
        """Prepare for the events of another response of the model."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Return the client's events for the data of one event of the model's response."""
        ...

    def turn(self) -> Turn:
        """Return the turn whose events were fed.

        Raises `UpstreamInvalidError` if the turn is incomplete.
        """
        ...

    def replayed(self, turn: Turn) -> bytes:
        """Return the client's events for a turn of an earlier request of the run."""
        ...

    def results(self, turn: Turn) -> bytes:
        """Return the client's events for the results of a turn."""
        ...

    def end(self, turns: list[Turn], ending: Ending) -> bytes:
        """Return the last events of the response."""
        ...


class Dialect(Protocol):
    """The form of one API."""

    def conversation(self, body: Json, turns: list[Turn], /) -> Json:
        """Return the body of the next request to the model. Raises `InvalidError`."""
        ...

    def read(self, response: bytes, /) -> Turn:
        """Return the turn of a response without a stream. Raises `UpstreamInvalidError`."""
        ...

    def body(self, turns: list[Turn], ending: Ending, is_automatic: IsAutomatic, /) -> bytes:
        """Return the response of a run without a stream."""
        ...

    def stream(self, run: str, body: Json, is_automatic: IsAutomatic, /) -> RunStream:
        """Return the writer of the streamed response of a run."""
        ...


def parsed_request(raw: bytes, member: str) -> Json:
    """Return the body of a request, whose `member` has the conversation. Raises `InvalidError`."""
    try:
        body = _decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidError(f"The body is not a JSON object: {error}. Send one.") from error
    if member == "input" and isinstance(body.get(member), str):
        body[member] = [{"role": "user", "content": body[member]}]
    found = body.get(member)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidError(f"The field '{member}' must be a list of objects.")
    return body


def parsed_response(raw: bytes) -> Json:
    """Return a response or an event of the model. Raises `UpstreamInvalidError`."""
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UpstreamInvalidError(
            "The provider's response is not a JSON object. Check the provider's 'url' and 'apis'."
        ) from error


def objects(value: Any) -> list[Json]:
    """Return the objects of a list; other values are ignored."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """Return a text; empty for any other value."""
    return value if isinstance(value, str) else ""


def joined_text(content: Any) -> str:
    """Return the text of a message's content: a text, or a list of parts with texts."""
    if isinstance(content, list):
        return "".join(text_of(part.get("text")) for part in objects(content))
    return text_of(content)


def is_executed(call_id: str, name: str, turn: Turn | None, is_automatic: IsAutomatic) -> bool:
    """Return whether the gateway executes a call: it has a result already, or is automatic."""
    return (turn is not None and call_id in turn.results) or is_automatic(name)


def checked(calls: list[Suggested]) -> list[Suggested]:
    """Return the calls with unique ids. Raises `UpstreamInvalidError` if there are too many."""
    if len(calls) > MAX_CALLS:
        raise UpstreamInvalidError(
            f"The model suggested {len(calls)} tool calls at once; at most {MAX_CALLS} are "
            "supported. Ask for fewer calls at once."
        )
    if len({call.call_id for call in calls}) < len(calls):
        raise UpstreamInvalidError(
            "The model suggested two tool calls with the same id, so their results would be "
            "ambiguous. Report this to the provider."
        )
    return calls


def summed(turns: list[Turn]) -> Json:
    """Return the usage of all turns together."""
    total: Json = {}
    for turn in turns:
        total = _sum(total, turn.usage)
    return total


def _sum(one: Json, other: Json) -> Json:
    total = dict(one)
    for name, value in other.items():
        before = total.get(name)
        if isinstance(value, dict):
            total[name] = _sum(before if isinstance(before, dict) else {}, value)
        elif _is_number(value) and _is_number(before):
            total[name] = before + value
        elif value is not None:
            total[name] = value
    return total


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
