"""Translation of a request of the responses API to the chat completions API."""

from typing import Any

from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.apis import chat, responses
from toolbus_executor.providers.translation.body import (
    CHAT_API,
    check_fields,
    read,
    unsupported,
)
from toolbus_executor.providers.translation.responses_to_chat.conversation import conversation
from toolbus_executor.providers.translation.responses_to_chat.namespaces import named_functions

# Fields without an effect on the response: accounting, caching, storage, and limits of tools that
# the provider would execute.
_DROPPED = frozenset(
    (
        *("metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention"),
        *("prompt_cache_options", "max_tool_calls", "truncation", "stream_options"),
        "client_metadata",  # of Codex
    )
)
_MODES = frozenset(("auto", "none", "required"))
_STATE = ("previous_response_id", "conversation", "prompt")  # stored by the provider
_KNOWN = frozenset(responses.Request.__struct_fields__) | _DROPPED | frozenset(_STATE)
_INCLUDED = frozenset(("reasoning.encrypted_content",))


def chat_request(body: dict[str, Any], limit: str, *, extended: bool) -> dict[str, Any]:
    """Return the request for the provider. `limit` is its field for the limit of output tokens.

    `extended` permits parts that only the translation to the messages API accepts: thinking
    blocks, and images in the results of tools.
    """
    check_fields(body, _KNOWN, CHAT_API)
    for name in _STATE:
        if body.get(name) is not None:
            fix = "Send the whole conversation in 'input'"
            raise unsupported(f"'{name}', because it stores no responses", CHAT_API, fix)
    request = read(body, responses.Request)
    for each in request.include or ():
        if each not in _INCLUDED:
            raise unsupported(f"'{each[:64]}' in 'include'", CHAT_API)
    if request.top_logprobs:
        raise unsupported("the field 'top_logprobs'", CHAT_API)
    made: dict[str, Any] = {
        "model": request.model,
        "messages": conversation(request, extended=extended),
    }
    if request.max_output_tokens is not None:
        made[limit] = request.max_output_tokens
    for name in ("temperature", "top_p", "user", "safety_identifier"):
        if (value := getattr(request, name)) is not None:
            made[name] = value
    if request.stream:
        made |= {"stream": True, "stream_options": {"include_usage": True}}
    if request.reasoning and request.reasoning.effort:
        effort = request.reasoning.effort
        made["reasoning_effort"] = effort if extended else chat.MAX_EFFORTS.get(effort, effort)
    return made | _tools(request) | _format(request.text)


def _tools(request: responses.Request) -> dict[str, Any]:
    """Return the fields for the tools and the tool choice."""
    tools, choice = named_functions(request.tools or []), request.tool_choice
    made: dict[str, Any] = {}
    if isinstance(choice, responses.ToolChoice):
        if choice.type == "function" and choice.name:
            made["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        elif choice.type == "allowed_tools":
            names = {each.name for each in choice.tools or ()}
            tools = [each for each in tools if each.name in names]
            made["tool_choice"] = _mode(choice.mode or "auto")
        else:
            raise unsupported(f"the tool choice '{choice.type[:64]}'", CHAT_API)
    elif choice is not None:
        made["tool_choice"] = _mode(choice)
    if request.parallel_tool_calls is not None:
        made["parallel_tool_calls"] = request.parallel_tool_calls
    # A model can do without the provider's search, which Codex always offers.
    tools = [each for each in tools if each.type not in ("web_search", "web_search_preview")]
    return {"tools": [_tool(each) for each in tools], **made} if tools else {}


def _mode(mode: str) -> str:
    if mode not in _MODES:
        raise InvalidError(
            f"The tool choice '{mode[:64]}' is unknown. Use auto, required, none or a function."
        )
    return mode


def _tool(tool: responses.Tool) -> dict[str, Any]:
    if tool.type != "function" or not tool.name:
        raise unsupported(f"a tool of the type '{tool.type[:64]}'", CHAT_API)
    function: dict[str, Any] = {
        "name": tool.name,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _format(text: responses.Text | None) -> dict[str, Any]:
    form = text.format if text else None
    if form is None or form.type == "text":
        return {}
    if form.type == "json_object":
        return {"response_format": {"type": "json_object"}}
    if form.type != "json_schema" or form.schema is None:
        raise unsupported(f"the format '{form.type[:64]}' without a schema", CHAT_API)
    schema: dict[str, Any] = {"name": form.name or "response", "schema": form.schema}
    for name in ("strict", "description"):
        if (value := getattr(form, name)) is not None:
            schema[name] = value
    return {"response_format": {"type": "json_schema", "json_schema": schema}}
