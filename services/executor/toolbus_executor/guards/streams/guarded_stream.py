"""Guards on the streamed response of a model, in the form of any API for clients.

Each text of the response is checked while it arrives. The end of a text is delayed as long as it
can be part of a match. The arguments of a tool call are delayed until they are complete, because
no client can use them earlier. All other members of an event, such as the whole text at the end of
a response, are checked without a delay. Every event is encoded again from its checked members, so
nothing else that the provider sent reaches the client.
"""

import re
from typing import Any

import msgspec

from toolbus_common.errors import ToolbusError, UpstreamInvalidError
from toolbus_common.guards.content import Content
from toolbus_executor.guards.call_guards import GuardedContent
from toolbus_executor.guards.completion_texts import (
    decoded_arguments,
    encoded_arguments,
    unambiguous,
)
from toolbus_executor.guards.held_secrets import HeldSecrets, cleaned
from toolbus_executor.guards.streams.deltas import (
    Delta,
    Key,
    deltas_in,
    ends,
    is_empty,
    with_rest,
)
from toolbus_executor.guards.streams.other_members import OtherMembers
from toolbus_executor.guards.streams.text_stages import GuardedText

_ENDS = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")
_NAME = re.compile(r"[a-z_.]{1,64}")
_DONE = b"[DONE]"
_COMMENT = b":\n\n"
_NUMBER = "sequence_number"
MOST_TEXTS = 1024  # texts of one response that are open at once
MOST_ENDED = 16_384
MAX_HELD = 4 << 20  # characters of one response that wait for a check
_encode = msgspec.json.Encoder().encode


class _OpenText:
    """A text of the response that has not ended."""

    def __init__(self, content: GuardedContent, secrets: HeldSecrets | None) -> None:
        self.checked = GuardedText(content, secrets)
        self.arguments: list[str] = []
        self.size = 0  # characters that are kept
        self.last: dict[str, Any] = {}  # the last event with a piece of this text
        self.delta: Delta | None = None  # the piece in the last event
        self.is_named = False  # whether the last event has a name


class GuardedStream:
    """The streamed response of one call. After an error, it returns nothing more."""

    def __init__(self, content: GuardedContent, secrets: HeldSecrets | None = None) -> None:
        self._content = content
        self._secrets = secrets
        self._others = OtherMembers(content, secrets)
        self._open: dict[Key, _OpenText] = {}
        self._ended: set[Key] = set()
        self._held = 0  # characters of all open texts
        self._is_done = False
        self._error: ToolbusError | None = None
        self._number: int | None = None  # sequence number of the last event

    async def feed(self, part: bytes) -> bytes:
        """Accept complete events, and return those that were checked.

        Raises:
            ToolbusError: a guard rejects the response, or an event cannot be checked.

        """
        if self._error is not None:
            raise self._error
        try:
            return b"".join([await self._event(each) for each in _ENDS.split(part) if each])
        except ToolbusError as error:
            self._error = error
            raise

    async def end(self) -> bytes:
        """Return the rest of all texts. Raises like `feed`."""
        if self._error is not None:
            raise self._error
        return await self._closed([*self._open])

    async def _event(self, raw: bytes) -> bytes:
        is_named, data = _fields(raw)
        if data is None:
            return _COMMENT  # keeps the connection alive
        if self._is_done:
            raise UpstreamInvalidError(
                "The upstream sent events after the end of its response, so the guards reject it. "
                "Request it without a stream."
            )
        if data == _DONE:
            self._is_done = True
            return await self._closed([*self._open]) + b"data: [DONE]\n\n"
        event = _decoded(data)
        deltas = deltas_in(event)
        ended = [key for key in self._open if ends(event, key)]
        own = {delta.key: delta for delta in deltas}  # of each text, the last piece
        before = await self._closed([key for key in ended if key not in own])
        for delta in deltas:
            await self._replace(delta, event, is_named=is_named)
        for delta in own.values():
            if ends(event, delta.key):
                delta.holder[delta.name] += await self._rest(self._close(delta.key))
        await self._others.check(event, deltas)
        if is_empty(event, deltas):
            return before
        return before + self._written(event, is_named=is_named)

    async def _replace(self, delta: Delta, event: dict[str, Any], *, is_named: bool) -> None:
        """Replace a piece of a text by what can be sent of the text now."""
        text = self._open.get(delta.key)
        if text is None:
            text = self._opened(delta.key)
        piece: str = delta.holder[delta.name]
        text.last, text.delta, text.is_named = event, delta, is_named
        self._held += len(piece)
        if self._held > MAX_HELD:
            raise UpstreamInvalidError(
                f"More than {MAX_HELD} characters of the response wait for its guards, so they "
                "cannot check it. Request a shorter response."
            )
        if delta.is_arguments:
            text.size += len(piece)
            text.arguments.append(piece)
            delta.holder[delta.name] = ""
            return
        delta.holder[delta.name] = await text.checked.feed(piece)
        size = text.checked.size
        self._held += size - text.size - len(piece)
        text.size = size

    def _opened(self, key: Key) -> _OpenText:
        """Return a new text. Raises `UpstreamInvalidError`."""
        if key in self._ended:
            raise UpstreamInvalidError(
                "The upstream continued a text after its end, so the guards reject the response. "
                "Request it without a stream."
            )
        if len(self._open) >= MOST_TEXTS or len(self._ended) >= MOST_ENDED:
            raise UpstreamInvalidError(
                f"The response has more than {MOST_TEXTS} open texts or {MOST_ENDED} ended texts, "
                "so its guards cannot check it. Request fewer choices or tool calls."
            )
        text = self._open[key] = _OpenText(self._content, self._secrets)
        return text

    def _close(self, key: Key) -> _OpenText:
        text = self._open.pop(key)
        self._ended.add(key)
        self._held -= text.size
        return text

    async def _closed(self, keys: list[Key]) -> bytes:
        """End some texts, and return the events with the rest of each."""
        events = []
        for key in keys:
            text = self._close(key)
            rest = await self._rest(text)
            if rest and text.delta is not None:
                made = with_rest(text.last, text.delta, rest)
                events.append(self._written(made, is_named=text.is_named))
        return b"".join(events)

    async def _rest(self, text: _OpenText) -> str:
        """Return the rest of a text that has ended. Raises the error of a guard."""
        if not text.arguments:
            return await text.checked.end()
        whole = unambiguous("".join(text.arguments))
        decoded = decoded_arguments(whole)
        document = Content(_encode([whole if decoded is None else decoded]))
        after = await cleaned(document, self._content, self._secrets)
        return whole if after is None else encoded_arguments(after[0])

    def _written(self, event: dict[str, Any], *, is_named: bool) -> bytes:
        """Return an event in its written form, with the next number if events have numbers.

        With `is_named`, the name is the event's type. Without a type, only an error gets a name.
        """
        if isinstance(event.get(_NUMBER), int):
            self._number = event[_NUMBER] if self._number is None else self._number + 1
            event[_NUMBER] = self._number
        kind = event.get("type")
        if not is_named:
            name = b""
        elif isinstance(kind, str) and _NAME.fullmatch(kind):
            name = b"event: " + kind.encode() + b"\n"
        else:
            name = b"event: error\n" if "error" in event else b""
        return name + b"data: " + _encode(event) + b"\n\n"


def _fields(raw: bytes) -> tuple[bool, bytes | None]:
    """Return whether an event has a name, and its data; None without data."""
    is_named, data = False, []
    for line in raw.splitlines():
        field, _, value = line.partition(b":")
        if field == b"event":
            is_named = True
        elif field == b"data":
            data.append(value.removeprefix(b" "))
    return is_named, b"\n".join(data) if data else None


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise UpstreamInvalidError(
            "The upstream sent an event that is not a JSON object, so its guards cannot check it. "
            "Check the provider's 'url' and 'apis'."
        )
    return event
