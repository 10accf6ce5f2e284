"""Translation of a stream of the chat completions API to the responses API."""

from typing import Any

from toolbus_executor.providers.translation.apis import chat, responses
from toolbus_executor.providers.translation.chat_stream import ChatStreamTranslation
from toolbus_executor.providers.translation.responses_to_chat.namespaces import call_name
from toolbus_executor.providers.translation.responses_to_chat.response import head, outcome
from toolbus_executor.providers.translation.sse import named

TEXT, REFUSAL, CALL, REASONING = "output_text", "refusal", "function_call_arguments", "reasoning"
_SUMMARY = "reasoning_summary_text"


class ResponseStream(ChatStreamTranslation):
    """The stream for the client: one response whose items follow each other.

    Invariant: at most one item is open, and it is the last one of the output. `fields` are the
    fields of the request that the response repeats.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        self._response: dict[str, Any] = {}
        self._fields = fields
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open = ""  # the kind of the open item
        self._texts: list[str] = []  # the parts of its text
        self._place: dict[str, Any] = {}  # the fields that locate it

    def _finished(self, reason: str) -> bytes:
        end = outcome(reason)
        usage = responses.usage_body(chat.usage_of(self._usage))
        self._response |= {**end, "output": self._output, "usage": usage}
        return self._event(f"response.{end['status']}", response=self._response)

    def _failure(self, message: str) -> bytes:
        parts: list[bytes] = []
        if not self._started:
            self._start(chat.Response(), parts)
        error = {"code": "server_error", "message": message}
        self._response |= {"status": "failed", "error": error, "output": self._output}
        return b"".join(parts) + self._event("response.failed", response=self._response)

    def _event(self, kind: str, **fields: Any) -> bytes:
        made = named({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return made

    def _start(self, chunk: chat.Response, parts: list[bytes]) -> None:
        self._response = head(chunk, self._fields)
        parts.append(self._event("response.created", response=self._response))
        parts.append(self._event("response.in_progress", response=self._response))

    def _delta(self, delta: chat.Reply, parts: list[bytes]) -> None:
        if thought := delta.thought:
            if self._open != REASONING:
                self._open_item(REASONING, responses.reasoning_item(""), parts)
            self._add(thought, parts)
        for block in delta.thinking_blocks or ():
            if self._open != REASONING:
                self._open_item(REASONING, responses.reasoning_item(""), parts)
            self._output[-1]["encrypted_content"] = responses.encrypted_content(block)
            self._close(parts)
        for kind, text in ((TEXT, delta.text), (REFUSAL, delta.refusal)):
            if text:
                if self._open != kind:
                    self._open_item(kind, responses.message_item("in_progress"), parts)
                self._add(text, parts)
        for call in delta.tool_calls or ():
            if self._calls.begins(call):
                function = call_name(self._calls.name, self._fields.get("tools"))
                item = responses.call_item("in_progress", self._calls.id, function, "")
                self._open_item(CALL, item, parts)
            if arguments := self._calls.arguments(call, is_open=self._open == CALL):
                self._add(arguments, parts)

    def _open_item(self, kind: str, item: dict[str, Any], parts: list[bytes]) -> None:
        self._close(parts)
        self._open, self._texts = kind, []
        index = len(self._output)
        self._output.append(item)
        self._place = {"item_id": item["id"], "output_index": index}
        parts.append(self._event("response.output_item.added", output_index=index, item=item))
        if kind in (TEXT, REFUSAL):
            self._place["content_index"] = 0
            part = _part(kind, "")
            parts.append(self._event("response.content_part.added", **self._place, part=part))

    def _add(self, text: str, parts: list[bytes]) -> None:
        """Add a part of the text of the open item."""
        kind = self._open
        if kind == REASONING and not self._texts:
            self._place["summary_index"] = 0
            part = {"type": "summary_text", "text": ""}
            name = "response.reasoning_summary_part.added"
            parts.append(self._event(name, **self._place, part=part))
        self._texts.append(text)
        fields: dict[str, Any] = {"logprobs": []} if kind == TEXT else {}
        name = f"response.{_SUMMARY if kind == REASONING else kind}.delta"
        parts.append(self._event(name, **self._place, delta=text, **fields))

    def _close(self, parts: list[bytes]) -> None:
        """Close the open item: its text is complete."""
        kind, self._open = self._open, ""
        if not kind:
            return
        item, text = self._output[-1], "".join(self._texts)
        status = outcome(self._finish_reason)["status"]  # a cut item is incomplete
        if kind == REASONING:
            self._close_reasoning(item, text, parts)
        elif kind == CALL:
            item |= {"status": status, "arguments": text or "{}"}
            done = {"arguments": item["arguments"], "name": item["name"]}
            parts.append(self._event(f"response.{kind}.done", **self._place, **done))
        else:
            part = _part(kind, text)
            item |= {"status": status, "content": [part]}
            done = {"text": text, "logprobs": []} if kind == TEXT else {"refusal": text}
            parts.append(self._event(f"response.{kind}.done", **self._place, **done))
            parts.append(self._event("response.content_part.done", **self._place, part=part))
        index = self._place["output_index"]
        parts.append(self._event("response.output_item.done", output_index=index, item=item))

    def _close_reasoning(self, item: dict[str, Any], text: str, parts: list[bytes]) -> None:
        if not text:
            return
        part = {"type": "summary_text", "text": text}
        item["summary"] = [part]
        parts.append(self._event(f"response.{_SUMMARY}.done", **self._place, text=text))
        name = "response.reasoning_summary_part.done"
        parts.append(self._event(name, **self._place, part=part))


def _part(kind: str, text: str) -> dict[str, Any]:
    return responses.text_part(text) if kind == TEXT else responses.refusal_part(text)
