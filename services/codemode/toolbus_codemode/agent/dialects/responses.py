"""Runs in the form of the responses API.

An executed call is an item of the type `mcp_call`, which is this API's form for calls that the
server executes. A client that returns it in its next request continues with these results.
"""

from typing import Any

from toolbus_codemode.agent.dialects.base import (
    EXECUTED,
    Ending,
    IsAutomatic,
    Json,
    Suggested,
    Turn,
    checked,
    encode,
    is_executed,
    objects,
    parsed_response,
    summed,
    text_of,
)
from toolbus_codemode.agent.dialects.events import DONE, named
from toolbus_common.errors import InvalidError, UpstreamInvalidError

CALL, EXECUTED_CALL, OUTPUT = "function_call", "mcp_call", "function_call_output"
SERVER = "toolbus"  # the server label of executed calls
RESPONSE_ID = "resp_tb_"
_LAST = frozenset({"response.completed", "response.incomplete"})
_OF_TURN = ("output", "usage", "id")


def conversation(body: Json, turns: list[Turn]) -> Json:
    """Return the body of the next request. Raises `InvalidError`."""
    if text_of(body.get("previous_response_id")).startswith(RESPONSE_ID):
        raise InvalidError(
            "'previous_response_id' names a run of agent mode, which the provider does not know. "
            "Send the items of that response in 'input' instead."
        )
    items = list(body["input"])
    for turn in turns:
        items += turn.content
        items += [
            {"type": OUTPUT, "call_id": call.call_id, "output": turn.results[call.call_id].text}
            for call in turn.calls
            if call.call_id in turn.results
        ]
    return {**body, "input": items}


def restored(body: Json) -> Json:
    """Return the body with executed calls of earlier runs restored to the model's own form."""
    items: list[Json] = []
    for item in body["input"]:
        item_id = text_of(item.get("id"))
        if item.get("type") != EXECUTED_CALL or not item_id.startswith(EXECUTED):
            items.append(item)
            continue
        call_id = item_id.removeprefix(EXECUTED)
        call = {name: text_of(item.get(name)) for name in ("name", "arguments")}
        output = text_of(item.get("output")) or text_of(item.get("error"))
        items.append({"type": CALL, "call_id": call_id, **call})
        items.append({"type": OUTPUT, "call_id": call_id, "output": output})
    return {**body, "input": items}


def read(response: bytes) -> Turn:
    """Return the turn of a response. Raises `UpstreamInvalidError`."""
    found = parsed_response(response)
    output, usage = found.pop("output", None), found.pop("usage", None)
    if not isinstance(output, list) or found.get("error"):
        raise UpstreamInvalidError(
            "The provider's response has no output. Check the provider's 'url' and 'apis'."
        )
    return _turn(found, objects(output), usage)


def body(turns: list[Turn], ending: Ending, is_automatic: IsAutomatic) -> bytes:
    """Return the response of a run: the items of all turns."""
    items = [_shown(item, turn, is_automatic) for turn in turns for item in turn.content]
    if ending.note:
        items.append(_note(ending))
    return encode(_response(turns, ending, items))


class ResponsesStream:
    """The events of one run: one response whose items are those of all turns."""

    def __init__(self, run: str, _body: Json, is_automatic: IsAutomatic) -> None:
        self._run = run
        self._is_automatic = is_automatic
        self._sequence = 0
        self._started = False
        self._output: list[Json] = []  # the client's items
        self.begin_turn()

    def begin_turn(self) -> None:
        """Prepare for the events of another response."""
        self._head: Json = {}
        self._usage: object = None
        self._items: dict[Any, Json] = {}  # by the provider's index
        self._indexes: dict[Any, int] = {}  # the client's index, by the provider's
        self._executed: dict[Any, str] = {}  # the client's item id of a call, by the index
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        """Return the client's events for one event."""
        if data == DONE:
            return b""
        event = parsed_response(data)
        kind, response = text_of(event.get("type")), event.get("response")
        if kind in ("response.failed", "error"):
            raise UpstreamInvalidError(
                "The provider reported an error in its stream. Continue the run."
            )
        if kind in ("response.created", "response.in_progress"):
            return self._begin(response if isinstance(response, dict) else {})
        if kind in _LAST and isinstance(response, dict):
            self._note_end(response)
            return b""
        index = event.get("output_index")
        if kind == "response.output_item.added":
            return self._add(index, event.get("item"))
        if kind == "response.output_item.done" and isinstance(event.get("item"), dict):
            return self._done(index, event["item"])
        return self._shifted(kind, index, event)

    def turn(self) -> Turn:
        """Return the turn. Raises `UpstreamInvalidError` if its stream has no last event."""
        if not self._ended:
            raise UpstreamInvalidError("The provider's stream ended early. Continue the run.")
        return _turn(self._head, list(self._items.values()), self._usage)

    def replayed(self, turn: Turn) -> bytes:
        """Return the events of an earlier turn."""
        self.begin_turn()
        parts = [self._begin(turn.head)]
        for item in turn.content:
            shown = _shown(item, turn, self._is_automatic, is_open=True)
            parts.append(self._whole(shown, is_open=shown.get("type") == EXECUTED_CALL))
        return b"".join(parts)

    def results(self, turn: Turn) -> bytes:
        """Return the events that complete the executed calls of a turn."""
        parts: list[bytes] = []
        for at, item in enumerate(self._output):
            call_id = text_of(item.get("id")).removeprefix(EXECUTED)
            found = turn.results.get(call_id)
            if item.get("type") != EXECUTED_CALL or found is None or item.get("status"):
                continue
            for call in turn.calls:
                if call.call_id == call_id:
                    item |= {"arguments": call.arguments, **_outcome(turn, call_id)}
            ended = {"item_id": item["id"], "output_index": at}
            state = "failed" if found.failed else "completed"
            parts.append(self._event(f"response.{EXECUTED_CALL}.{state}", **ended))
            parts.append(self._event("response.output_item.done", output_index=at, item=item))
        return b"".join(parts)

    def end(self, turns: list[Turn], ending: Ending) -> bytes:
        """Return the last events: the whole response, with the usage of all turns."""
        parts = [] if self._started else [self._begin({})]
        if ending.note:
            parts.append(self._whole(_note(ending)))
        response = _response(turns, ending, self._output)
        parts.append(self._event(f"response.{response['status']}", response=response))
        return b"".join(parts)

    def _event(self, kind: str, **fields: Any) -> bytes:
        made = named({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return made

    def _begin(self, response: Json) -> bytes:
        self._head = self._head or {n: each for n, each in response.items() if n not in _OF_TURN}
        if self._started:
            return b""
        self._started = True
        shown = {"object": "response", **self._head, "id": f"{RESPONSE_ID}{self._run}"}
        shown |= {"status": "in_progress", "output": [], "usage": None}
        first = self._event("response.created", response=shown)
        return first + self._event("response.in_progress", response=shown)

    def _add(self, index: Any, item: Any) -> bytes:
        if not isinstance(item, dict) or not isinstance(index, int) or index in self._items:
            raise UpstreamInvalidError(
                "The provider's stream has an invalid output item. Check the provider's 'apis'."
            )
        self._items[index] = item
        at = self._indexes[index] = len(self._output)
        shown = _shown(item, None, self._is_automatic)
        self._output.append(shown)
        added = self._event("response.output_item.added", output_index=at, item=shown)
        if shown.get("type") != EXECUTED_CALL:
            return added
        self._executed[index] = shown["id"]
        place = {"item_id": shown["id"], "output_index": at}
        return added + self._event(f"response.{EXECUTED_CALL}.in_progress", **place)

    def _done(self, index: Any, item: Json) -> bytes:
        if index not in self._items:
            return self._add(index, item) + self._done(index, item)
        self._items[index] = item
        if index in self._executed:
            return b""  # it is done when it has a result
        at = self._indexes[index]
        self._output[at] = item
        return self._event("response.output_item.done", output_index=at, item=item)

    def _shifted(self, kind: str, index: Any, event: Json) -> bytes:
        at = self._indexes.get(index)
        if at is None:
            return b""
        fields = {name: each for name, each in event.items() if name not in _RENUMBERED}
        if index in self._executed:
            kind = kind.replace(CALL, EXECUTED_CALL)
            fields = {n: each for n, each in fields.items() if n in ("delta", "arguments")}
            fields["item_id"] = self._executed[index]
        return self._event(kind, **fields, output_index=at)

    def _note_end(self, response: Json) -> None:
        self._head = {name: each for name, each in response.items() if name not in _OF_TURN}
        self._usage = response.get("usage")
        if not self._items:
            self._items = dict(enumerate(objects(response.get("output"))))
        self._ended = True

    def _whole(self, item: Json, *, is_open: bool = False) -> bytes:
        """Return the events of an item; if it is open, without `output_item.done`."""
        at = len(self._output)
        self._output.append(item)
        parts = [self._event("response.output_item.added", output_index=at, item=item)]
        if item.get("type") == "message":
            for number, part in enumerate(objects(item.get("content"))):
                parts.append(self._whole_part(item, at, number, part))
        if not is_open:
            parts.append(self._event("response.output_item.done", output_index=at, item=item))
        return b"".join(parts)

    def _whole_part(self, item: Json, at: int, number: int, part: Json) -> bytes:
        place = {"item_id": item.get("id", ""), "output_index": at, "content_index": number}
        empty = {**part, "text": ""} if "text" in part else part
        events = [self._event("response.content_part.added", **place, part=empty)]
        if part.get("type") == "output_text":
            text = {"delta": part.get("text", ""), "logprobs": []}
            events.append(self._event("response.output_text.delta", **place, **text))
            done = {"text": part.get("text", ""), "logprobs": []}
            events.append(self._event("response.output_text.done", **place, **done))
        events.append(self._event("response.content_part.done", **place, part=part))
        return b"".join(events)


stream = ResponsesStream
_RENUMBERED = ("type", "sequence_number", "output_index")


def _turn(head: Json, items: list[Json], usage: object) -> Turn:
    calls = [
        Suggested(
            text_of(item.get("call_id")),
            text_of(item.get("name")),
            text_of(item.get("arguments")),
        )
        for item in items
        if item.get("type") == CALL
    ]
    head = {name: each for name, each in head.items() if name not in _OF_TURN}
    return Turn(head, items, checked(calls), usage if isinstance(usage, dict) else {})


def _response(turns: list[Turn], ending: Ending, items: list[Json]) -> Json:
    head = dict(turns[-1].head) if turns else {"object": "response", "model": ""}
    details = head.get("incomplete_details")
    status = text_of(head.get("status"))
    status = status if status in ("completed", "incomplete") else "completed"
    if ending.limit:
        status, details = "incomplete", {"reason": "max_output_tokens"}
    ended = {"status": status, "incomplete_details": details, "output": items}
    about = {"usage": summed(turns) or None, "toolbus": ending.about}
    return {**head, "id": f"{RESPONSE_ID}{ending.run}", **ended, **about}


def _shown(
    item: Json, turn: Turn | None, is_automatic: IsAutomatic, *, is_open: bool = False
) -> Json:
    """Return an item for the client. A call that the gateway executes becomes `mcp_call`."""
    call_id, name = text_of(item.get("call_id")), text_of(item.get("name"))
    if item.get("type") != CALL or not is_executed(call_id, name, turn, is_automatic):
        return item
    shown: Json = {"type": EXECUTED_CALL, "id": f"{EXECUTED}{call_id}", "server_label": SERVER}
    shown |= {name: text_of(item.get(name)) for name in ("name", "arguments")}
    if turn is None or is_open:
        return {**shown, "output": None, "error": None}
    return {**shown, **_outcome(turn, call_id)}


def _outcome(turn: Turn, call_id: str) -> Json:
    found = turn.results.get(call_id)
    if found is None:
        return {"output": None, "error": None, "status": "incomplete"}
    if found.failed:
        return {"output": None, "error": found.text, "status": "failed"}
    return {"output": found.text, "error": None, "status": "completed"}


def _note(ending: Ending) -> Json:
    part = {"type": "output_text", "text": ending.note, "annotations": [], "logprobs": []}
    message = {"id": f"msg_{ending.run}", "type": "message", "role": "assistant"}
    return {**message, "status": "completed", "content": [part]}
