"""Translation of the messages of the chat completions API to the contents of Gemini."""

import re
from mimetypes import guess_type
from typing import Any
from urllib.parse import urlsplit

from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.apis import chat, gemini
from toolbus_executor.providers.translation.body import (
    GEMINI_API,
    arguments_of,
    data_url,
    unsupported,
)

_CHECKS_SIGNATURES = re.compile(r"gemini-([3-9]|\d{2})")
_OWN_ID = re.compile(r"call_[0-9a-f]{24}")  # an id that the translation of a response has made
_HOST = re.compile(r"[a-z0-9.-]+")
# Hosts with files of Google Cloud, Drive and the Gemini API.
_OF_GOOGLE = re.compile(r"(?:.*\.)?(?:googleapis|googleusercontent|google)\.com")
_AUDIO = {"wav": "audio/wav", "mp3": "audio/mp3"}


def conversation(
    source: list[chat.Message], model: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the parts of the system instruction, and the contents.

    Messages of the roles `system` and `developer` become the system instruction, in their order.
    Consecutive messages of one role become one content, because Gemini requires the results of
    parallel calls in one content.
    """
    system: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the functions, by the id of the call
    for message in source:
        if message.role in ("system", "developer"):
            system += _parts(message.content)
        elif message.role == "assistant":
            _append(made, "model", _model_parts(message, names, model))
        elif message.role == "tool":
            _append(made, "user", _result(message, names))
        elif message.role == "user":
            _append(made, "user", _parts(message.content))
        else:
            raise unsupported(f"a message of the role '{message.role[:64]}'", GEMINI_API)
    return system, made


def _append(made: list[dict[str, Any]], role: str, parts: list[dict[str, Any]]) -> None:
    if not parts:
        return
    if made and made[-1]["role"] == role:
        made[-1]["parts"] += parts
    else:
        made.append({"role": role, "parts": parts})


def _model_parts(message: chat.Message, names: dict[str, str], model: str) -> list[dict[str, Any]]:
    """Return the parts of a message of the model. Only the signatures of its reasoning are kept."""
    if message.function_call is not None:
        raise unsupported("'function_call'", GEMINI_API, "Use 'tool_calls'")
    if message.audio is not None:
        raise unsupported("'audio' in a message", GEMINI_API)
    signatures = gemini.signatures_in(message.thinking_blocks or [])
    made = _parts(message.content)
    if message.refusal:
        made.append({"text": message.refusal})
    if made and (signature := signatures.get(gemini.OF_TEXT)):
        made[-1]["thoughtSignature"] = signature
    for index, call in enumerate(message.tool_calls or ()):
        if call.function is None or not call.function.name or not call.id:
            raise unsupported("a tool call without an id or a function", GEMINI_API)
        name = names[call.id] = call.function.name
        args = arguments_of(call.function.arguments, name, InvalidError)
        part: dict[str, Any] = {"functionCall": {**_id(call.id), "name": name, "args": args}}
        signature = signatures.get(str(index)) or _extra_signature(call.extra_content)
        if signature is None and index == 0 and _CHECKS_SIGNATURES.search(model):
            signature = gemini.NO_SIGNATURE
        if signature is not None:
            part["thoughtSignature"] = signature
        made.append(part)
    return made


def _extra_signature(extra: Any) -> str | None:
    """Return the signature in the form of Google's own chat completions API."""
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None


def _id(call_id: str) -> dict[str, Any]:
    """Return the field `id` of a call if Gemini has made the id; otherwise no field."""
    return {} if _OWN_ID.fullmatch(call_id) else {"id": call_id}


def _result(message: chat.Message, names: dict[str, str]) -> list[dict[str, Any]]:
    """Return a tool's result as parts: the result with its text, then its images and files."""
    call_id = message.tool_call_id
    if not call_id:
        raise InvalidError("A message of the role 'tool' has no 'tool_call_id'. Add it.")
    if call_id not in names:
        raise InvalidError(
            f"The tool result '{call_id[:64]}' has no tool call before it. Send the message with "
            "the call too."
        )
    parts = _parts(message.content)
    text = "\n\n".join(part["text"] for part in parts if "text" in part)
    outcome = "error" if message.is_error else "output"
    response = {**_id(call_id), "name": names[call_id], "response": {outcome: text}}
    return [{"functionResponse": response}, *(part for part in parts if "text" not in part)]


def _parts(content: str | list[chat.Part] | None) -> list[dict[str, Any]]:
    """Return the parts. Empty texts are left out, because Gemini refuses them."""
    if content is None:
        return []
    parts = [chat.Part("text", text=content)] if isinstance(content, str) else content
    return [made for part in parts if (made := _part(part)) is not None]


def _part(part: chat.Part) -> dict[str, Any] | None:
    if part.type in ("text", "refusal"):
        text = part.text or part.refusal
        return {"text": text} if text else None
    if part.type == "image_url" and part.image_url:
        return _data(part.image_url.url)
    if part.type == "file" and part.file and part.file.file_data:
        return _data(part.file.file_data)
    if part.type == "input_audio" and part.input_audio:
        return _audio(part.input_audio)
    raise unsupported(f"a content part of the type '{part.type[:64]}'", GEMINI_API)


def _audio(audio: chat.Audio) -> dict[str, Any]:
    kind = _AUDIO.get(audio.format or "")
    if kind is None or not audio.data:
        raise unsupported("such an 'input_audio'", GEMINI_API, "Send data in the format wav or mp3")
    return {"inlineData": {"mimeType": kind, "data": audio.data}}


def _data(url: str) -> dict[str, Any]:
    """Return the part of a data URL, or of a public URL that Google reads.

    Google reads files of its own services with the identity of the gateway, so their URLs are
    refused: a client could name any file that the gateway's account can read.
    """
    if (parsed := data_url(url)) is not None:
        return {"inlineData": {"mimeType": parsed[0], "data": parsed[1]}}
    try:
        target = urlsplit(url)
        host = (target.hostname or "").rstrip(".").lower()
    except ValueError:
        host = ""
    is_public = url[:8].lower() == "https://" and _HOST.fullmatch(host)
    if not is_public or _OF_GOOGLE.fullmatch(host):
        raise unsupported(
            "such a URL of a file", GEMINI_API, "Send its data, or a public URL with https"
        )
    kind = guess_type(target.path)[0]
    return {"fileData": {"fileUri": url} | ({"mimeType": kind} if kind else {})}
