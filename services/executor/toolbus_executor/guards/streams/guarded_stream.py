"""Guards on the streamed response of a model, in the form of any API for clients.

Each text of the response is checked while it arrives, and the end of it is delayed until it
cannot belong to a match anymore. The arguments of a tool call are delayed until they are
complete, because no client can use them earlier. All other texts of an event, such as the whole
text at the end of a response, are checked as they are.
"""

import re
from typing import Any

import msgspec

from toolbus_common.errors import ToolbusError, UpstreamInvalidError
from toolbus_executor.guards.call_guards import GuardedContent
from toolbus_executor.guards.completion_texts import (
    TextsOfResponse,
    decoded_arguments,
    encoded_arguments,
    unambiguous,
)
from toolbus_executor.guards.streams.deltas import (
    Delta,
    Key,
    deltas_in,
    ends,
    is_empty,
    with_rest,
)
from toolbus_executor.guards.streams.text_stages import MAX_HELD, GuardedText

_ENDS = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")
_DONE = b"[DONE]"
_NUMBER = "sequence_number"
MOST_TEXTS = 1024  # texts of one response that are open at once
_encode = msgspec.json.Encoder().encode


class _OpenText:
    """A text of the response that has not ended."""

    def __init__(self, content: GuardedContent) -> None:
        self.checked = GuardedText(content)
        self.arguments: list[str] = []
        self.size = 0
        self.last: dict[str, Any] = {}  # the last event with a piece of it
        self.name = b""  # of that event


class GuardedStream:
    """The streamed response of one call. After an error, it returns nothing more."""

    def __init__(self, content: GuardedContent) -> None:
        self._content = content
        self._open: dict[Key, _OpenText] = {}
        self._error: ToolbusError | None = None
        self._number: int | None = None  # of the last event of the responses API

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
        name, data = _fields(raw)
        if data is None:
            return raw  # a comment
        if data == _DONE:
            return await self._closed([*self._open]) + raw
        event = _decoded(data)
        if b'"logprobs"' in data:
            TextsOfResponse(event).drop_probabilities()
        deltas = deltas_in(event)
        ended = [key for key in self._open if ends(event, key)]
        own = {delta.key for delta in deltas}
        before = await self._closed([key for key in ended if key not in own])
        rests: list[Delta] = []
        for delta in deltas:
            await self._replace(delta, event, name)
            if ends(event, delta.key):
                rests.append(delta)
        for delta in rests:
            delta.holder[delta.name] += await self._rest(self._open.pop(delta.key))
        await self._check_others(event, deltas)
        if is_empty(event, deltas):
            return before
        return before + self._written(name, event)

    async def _replace(self, delta: Delta, event: dict[str, Any], name: bytes) -> None:
        """Replace a piece of a text by what can be sent of the text now."""
        text = self._open.get(delta.key)
        if text is None:
            if len(self._open) >= MOST_TEXTS:
                raise UpstreamInvalidError(
                    f"The response has more than {MOST_TEXTS} texts at once, so its guards cannot "
                    "check it. Request fewer choices or tool calls."
                )
            text = self._open[delta.key] = _OpenText(self._content)
        piece: str = delta.holder[delta.name]
        text.last, text.name = event, name
        if not delta.is_arguments:
            delta.holder[delta.name] = await text.checked.feed(piece)
            return
        text.size += len(piece)
        if text.size > MAX_HELD:
            raise UpstreamInvalidError(
                f"The arguments of a tool call exceed {MAX_HELD} characters, so the guards cannot "
                "check them. Request a shorter response."
            )
        text.arguments.append(piece)
        delta.holder[delta.name] = ""

    async def _closed(self, keys: list[Key]) -> bytes:
        """End some texts, and return the events with the rest of each."""
        events = []
        for key in keys:
            text = self._open.pop(key)
            rest = await self._rest(text)
            if rest:
                events.append(self._written(text.name, with_rest(text.last, key, rest)))
        return b"".join(events)

    async def _rest(self, text: _OpenText) -> str:
        """Return the rest of a text that has ended. Raises the error of a guard."""
        if not text.arguments:
            return await text.checked.end()
        whole = unambiguous("".join(text.arguments))
        decoded = decoded_arguments(whole)
        body = _encode([whole if decoded is None else decoded])
        cleaned = await self._content.cleaned(body)
        return whole if cleaned is body else encoded_arguments(msgspec.json.decode(cleaned)[0])

    async def _check_others(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        """Check the texts of an event that are no pieces."""
        pieces = [delta.holder.pop(delta.name) for delta in deltas]
        try:
            texts = TextsOfResponse(event)
            if texts.document:
                body = _encode(texts.document)
                cleaned = await self._content.cleaned(body)
                if cleaned is not body:
                    texts.replace(msgspec.json.decode(cleaned))
        except ValueError as error:
            raise UpstreamInvalidError(str(error)) from error
        finally:
            for delta, piece in zip(deltas, pieces, strict=True):
                delta.holder[delta.name] = piece

    def _written(self, name: bytes, event: dict[str, Any]) -> bytes:
        """Return an event in its written form, with the next number if events have numbers."""
        if isinstance(event.get(_NUMBER), int):
            self._number = event[_NUMBER] if self._number is None else self._number + 1
            event[_NUMBER] = self._number
        head = b"event: " + name + b"\n" if name else b""
        return head + b"data: " + _encode(event) + b"\n\n"


def _fields(raw: bytes) -> tuple[bytes, bytes | None]:
    """Return the name and the data of an event; None without data."""
    name, data = b"", []
    for line in raw.splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
        elif field == b"data":
            data.append(value)
    return name, b"\n".join(data) if data else None


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise UpstreamInvalidError(
            "The upstream sent an event that is not a JSON object, so its guards cannot check it."
        )
    return event
