"""Conversion of an agent's answer to a tool result."""

import re
from typing import Any

import msgspec

from toolbus_common.a2a.protocol import File, Json, file_in
from toolbus_executor.upstreams.a2a.answer import Answer
from toolbus_executor.upstreams.a2a.events import WORKING

LONGEST_ERROR = 2_000
_INPUT, _AUTHORIZATION = "input-required", "auth-required"
_SUCCEEDED = frozenset({"completed", _INPUT, *WORKING})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_encode = msgspec.json.Encoder().encode


def result_of(answer: Answer, task: str, context: str) -> bytes:
    """Return the tool result of an answer.

    Args:
        answer: the agent's answer.
        task: the id of its task for the caller; empty if there is none.
        context: the id of its context for the caller; empty if there is none.

    """
    parts = [part for each in answer.artifacts.values() for part in each.parts]
    shown = parts if answer.state == "completed" and parts else [*answer.message, *parts]
    structured: dict[str, Any] = {"state": answer.state}
    structured |= {"task_id": task} if task else {}
    structured |= {"context_id": context} if context else {}
    data = [each["data"] for each in shown if "data" in each]
    structured |= {"data": data} if data else {}
    content = [_content(each) for each in shown]
    hint = _hint(answer.state, task)
    content += [_text(hint)] if hint else []
    result: dict[str, Any] = {"content": content, "structuredContent": structured}
    if answer.state not in _SUCCEEDED:
        result["isError"] = True
    return _encode(result)


def refused(message: str) -> bytes:
    """Return an error result with this message."""
    structured = {"state": "failed"}
    text = _text(_CONTROL.sub("", message)[:LONGEST_ERROR])
    return _encode({"content": [text], "structuredContent": structured, "isError": True})


def words_of(parts: list[Json], longest: int) -> str:
    """Return the text in parts, shortened."""
    texts = [each["text"] for each in parts if isinstance(each.get("text"), str)]
    return _CONTROL.sub("", " ".join(texts))[:longest]


def _content(part: Json) -> dict[str, Any]:
    if isinstance(part.get("text"), str):
        return _text(part["text"])
    if "data" in part:
        return _text(_encode(part["data"]).decode())
    file = file_in(part)
    return _text("(a part of an unknown kind)") if file is None else _file(file)


def _file(file: File) -> dict[str, Any]:
    media = file.media_type or "application/octet-stream"
    if file.url:
        if not file.url.startswith(("http://", "https://")):
            return _text(f"File: {file.url[:2_000]}")
        named = {"name": file.name or file.url.rpartition("/")[2] or "file"}
        return {"type": "resource_link", "uri": file.url, "mimeType": media, **named}
    kind = media.partition("/")[0]
    if kind in ("image", "audio") and not media.endswith("xml"):
        return {"type": kind, "data": file.base64, "mimeType": media}
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", file.name)[:200] or "file"
    resource = {"uri": f"a2a:{name}", "mimeType": media, "blob": file.base64}
    return {"type": "resource", "resource": resource}


def _hint(state: str, task: str) -> str:
    if state == "completed":
        return ""
    if state == _INPUT:
        return f"The agent needs more input. Answer with task_id {task} and a message."
    if state == _AUTHORIZATION:
        return f"The agent needs an authorization, then continue with task_id {task}."
    if state in WORKING:
        return f"The agent is still working. Call again with only task_id {task} to wait."
    return f"The task ended in the state {state}."


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
