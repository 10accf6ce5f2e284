"""Translation of a request of the messages API to the Converse API of Amazon Bedrock."""

from typing import Any

from msgspec import Struct

from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.apis import messages
from toolbus_executor.providers.translation.body import (
    CONVERSE_API,
    check_fields,
    encode,
    read,
    unsupported,
)
from toolbus_executor.providers.translation.messages_to_converse.conversation import (
    cache_point,
    conversation,
    system_blocks,
    uses_tools,
)


class Request(messages.Request):
    """A request. `top_k` is one of the model's own fields."""

    top_k: int | None = None


# Fields without an effect on the response: accounting, speed, and the removal of old blocks from
# the prompt, which only saves tokens.
_DROPPED = frozenset(
    ("cache_control", "context_management", "diagnostics", "service_tier", "speed", "betas")
)
_KNOWN = frozenset(Request.__struct_fields__) | _DROPPED
_MAX_TEMPERATURE = 1.0


class _Family(Struct, frozen=True):
    """The fields in `additionalModelRequestFields` that a family of models supports."""

    top_k: tuple[str, ...] = ()
    thinks: bool = False
    effort: str = ""


_FAMILIES = {  # by the vendor in the model's id
    "anthropic": _Family(top_k=("top_k",), thinks=True),
    "amazon": _Family(top_k=("inferenceConfig", "topK")),
    "openai": _Family(effort="reasoning_effort"),
}


def converse_request(body: dict[str, Any]) -> dict[str, Any]:
    """Return the request for the provider. Its URL names the model and selects a stream or not."""
    check_fields(body, _KNOWN, CONVERSE_API)
    request = read(body, Request)
    vendors = [name for name in _FAMILIES if f"{name}." in request.model]
    family = _FAMILIES[vendors[0]] if vendors else _Family()
    made: dict[str, Any] = {"messages": conversation(request.messages)}
    if system := system_blocks(request.system):
        made["system"] = system
    inference: dict[str, Any] = {"maxTokens": request.max_tokens}
    for name, to in (("temperature", "temperature"), ("top_p", "topP")):
        if (value := getattr(request, name)) is not None:
            inference[to] = value
    if (request.temperature or 0) > _MAX_TEMPERATURE:
        raise unsupported("a 'temperature' above 1", CONVERSE_API, "Use one between 0 and 1")
    if request.stop_sequences:
        inference["stopSequences"] = request.stop_sequences
    made["inferenceConfig"] = inference
    made |= _tools(request)
    made |= _output(request, family)
    if more := _more(request, family):
        made["additionalModelRequestFields"] = more
    return made


def _more(request: Request, family: _Family) -> dict[str, Any]:
    """Return the model's own fields. Thinking is a hint, so models without it get none."""
    made: dict[str, Any] = {}
    if request.top_k is not None:
        if not family.top_k:
            raise unsupported("the field 'top_k' for this model", CONVERSE_API)
        value: Any = request.top_k
        for name in reversed(family.top_k):
            value = {name: value}
        made |= value
    if request.thinking is not None and family.thinks:
        made["thinking"] = {
            name: value
            for name in request.thinking.__struct_fields__
            if (value := getattr(request.thinking, name)) is not None
        }
    effort = request.output_config.effort if request.output_config else None
    if effort is not None and family.effort:
        made[family.effort] = "high" if effort in ("xhigh", "max") else effort
    return made


def _output(request: Request, family: _Family) -> dict[str, Any]:
    """Return the effort, and the form of the response."""
    config = request.output_config or messages.OutputConfig()
    made: dict[str, Any] = {}
    if config.effort is not None and family.thinks:
        made["effort"] = config.effort
    if config.format is not None:
        if config.format.type != "json_schema" or config.format.schema is None:
            raise unsupported(f"the output format '{config.format.type[:64]}'", CONVERSE_API)
        schema = encode(config.format.schema, InvalidError).decode()
        structure = {"jsonSchema": {"schema": schema, "name": "response"}}
        made["textFormat"] = {"type": "json_schema", "structure": structure}
    return {"outputConfig": made} if made else {}


def _tools(request: Request) -> dict[str, Any]:
    choice, tools = request.tool_choice, request.tools or []
    if choice is not None and choice.disable_parallel_tool_use and tools:
        raise unsupported("'disable_parallel_tool_use'", CONVERSE_API)
    if choice is not None and choice.type == "none":
        if uses_tools(request.messages):
            raise unsupported("the tool choice 'none' after a tool call", CONVERSE_API)
        return {}
    if not tools:
        return {}
    made: dict[str, Any] = {"tools": []}
    for tool in tools:
        made["tools"] += [_tool(tool), *cache_point(tool.cache_control)]
    if choice is not None:
        made["toolChoice"] = _tool_choice(choice)
    return {"toolConfig": made}


def _tool(tool: messages.Tool) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise unsupported(f"the built-in tool '{tool.type[:64]}'", CONVERSE_API)
    schema = tool.input_schema or {"type": "object", "properties": {}}
    made: dict[str, Any] = {"name": tool.name, "inputSchema": {"json": schema}}
    if tool.description:
        made["description"] = tool.description
    if tool.strict:
        made["strict"] = True
    return {"toolSpec": made}


def _tool_choice(choice: messages.ToolChoice) -> dict[str, Any]:
    if choice.type == "tool" and choice.name:
        return {"tool": {"name": choice.name}}
    if choice.type in ("auto", "any"):
        return {choice.type: {}}
    raise InvalidError(
        f"The tool choice '{choice.type[:64]}' is unknown. Use auto, any, tool or none."
    )
