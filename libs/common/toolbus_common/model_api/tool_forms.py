"""Tools, suggested tool calls, and their results in the form of each API for models (no I/O)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from toolbus_common import strict_json
from toolbus_common.errors import InvalidError

MAX_CONCURRENT = 32


class Form(StrEnum):
    """The API whose form a tool, a tool call or a result has."""

    CHAT = "chat"
    RESPONSES = "responses"
    MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that a model suggested."""

    name: str
    arguments: dict[str, Any]
    call_id: str
    form: Form

    def result(self, text: str, *, failed: bool) -> dict[str, Any]:
        """Return the result in the form of the call. Only the messages API can mark a failure."""
        if self.form is Form.CHAT:
            return {"role": "tool", "tool_call_id": self.call_id, "content": text}
        if self.form is Form.RESPONSES:
            return {"type": "function_call_output", "call_id": self.call_id, "output": text}
        result = {"type": "tool_result", "tool_use_id": self.call_id, "content": text}
        return {**result, "is_error": True} if failed else result


def definition_of(tool: dict[str, Any], form: Form) -> dict[str, Any]:
    """Return a tool, as MCP lists it, in the form of an entry of `tools` of an API.

    Without `strict: false`, the responses API would make all parameters required.
    """
    schema = tool.get("inputSchema", {"type": "object"})
    parameters = "input_schema" if form is Form.MESSAGES else "parameters"
    function = {"name": tool["name"], parameters: schema}
    if tool.get("description"):
        function["description"] = tool["description"]
    if form is Form.MESSAGES:
        return function
    if form is Form.RESPONSES:
        return {"type": "function", **function, "strict": False}
    return {"type": "function", "function": function}


def messages_of(form: Form, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the results of an assistant message: one user message, or a list of messages."""
    if form is Form.MESSAGES:
        return {"role": "user", "content": results}
    return {"messages": results}


def result_text(result: dict[str, Any]) -> str:
    """Return a result of MCP as the text of a tool message. Content other than text stays JSON."""
    blocks = result.get("content") or []
    if blocks and all(block.get("type") == "text" for block in blocks):
        return "\n".join(str(block.get("text", "")) for block in blocks)
    if not blocks and "structuredContent" in result:
        return strict_json.dump(result["structuredContent"]).decode()
    return strict_json.dump(blocks).decode()


def parse_suggestion(body: dict[str, Any]) -> ToolCall | list[ToolCall]:
    """Parse one tool call, or an assistant message with several.

    Raises:
        InvalidError: the body has none of the known forms, or has too many tool calls.

    """
    if "tool_calls" in body:
        return _several(body["tool_calls"])
    if body.get("type") == "tool_use":
        return _tool_use(body)
    if body.get("role") == "assistant" and isinstance(body.get("content"), list):
        return _tool_uses(body["content"])
    return _function_call(body)


def parse_object(text: bytes) -> dict[str, Any]:
    """Parse the JSON text of an object. Raises `InvalidError`."""
    try:
        found = strict_json.parse(text)
    except strict_json.StrictJSONError as error:
        raise InvalidError(f"The body or the arguments must be a JSON object: {error}.") from error
    if not isinstance(found, dict):
        raise InvalidError("The body or the arguments must be a JSON object.")
    return found


# -- chat completions and responses ----------------------------------------------------------------


def _several(value: Any) -> list[ToolCall]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CONCURRENT:
        raise InvalidError(f"tool_calls must be a list of 1 to {MAX_CONCURRENT} tool calls.")
    return [_function_call(each) for each in value]


def _function_call(value: Any) -> ToolCall:
    chat = isinstance(value, dict) and isinstance(value.get("function"), dict)
    function = value["function"] if chat else value
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidError(
            'Invalid tool call. Send it as the model returned it: {"id": …, "function": {"name": '
            '…, "arguments": "{…}"}}, {"type": "function_call", "call_id": …, "name": …}, or '
            '{"type": "tool_use", "id": …, "name": …, "input": {…}}.'
        )
    call_id = value.get("id" if chat else "call_id")
    if not isinstance(call_id, str):
        raise InvalidError("The tool call has no id. Send the id from the model.")
    form = Form.CHAT if chat else Form.RESPONSES
    return ToolCall(function["name"], _arguments(function.get("arguments")), call_id, form)


def _arguments(value: Any) -> dict[str, Any]:
    """Parse arguments as models write them: an object, or the JSON text of an object."""
    if isinstance(value, str):
        return parse_object(value.encode()) if value.strip() else {}
    if value is None or isinstance(value, dict):
        return value or {}
    raise InvalidError("The arguments must be a JSON object, or its text.")


# -- messages --------------------------------------------------------------------------------------


def _tool_uses(blocks: list[Any]) -> list[ToolCall]:
    """Parse the `tool_use` blocks of a message; blocks of other types are ignored."""
    if not all(isinstance(block, dict) for block in blocks):
        raise InvalidError("The content of the assistant message must be a list of objects.")
    found = [block for block in blocks if block.get("type") == "tool_use"]
    if not 1 <= len(found) <= MAX_CONCURRENT:
        raise InvalidError(
            f"The content of the assistant message has {len(found)} blocks of type 'tool_use'. "
            f"Send 1 to {MAX_CONCURRENT}."
        )
    calls = [_tool_use(block) for block in found]
    if len({call.call_id for call in calls}) < len(calls):
        raise InvalidError(
            "Two blocks of type 'tool_use' have the same id, so their results would be "
            "ambiguous. Send the ids from the model."
        )
    return calls


def _tool_use(block: dict[str, Any]) -> ToolCall:
    name, call_id, arguments = (block.get(each) for each in ("name", "id", "input"))
    if not isinstance(name, str) or not isinstance(call_id, str):
        raise InvalidError("The block 'tool_use' needs an id and a name. Send both from the model.")
    if not isinstance(arguments, dict):
        raise InvalidError("The input of the block 'tool_use' must be an object, not its text.")
    return ToolCall(name, arguments, call_id, Form.MESSAGES)
