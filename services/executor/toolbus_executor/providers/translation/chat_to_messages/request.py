"""Translation of a request of the chat completions API to the messages API."""

from typing import Any

from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.apis import chat
from toolbus_executor.providers.translation.body import (
    MESSAGES_API,
    check_fields,
    read,
    unsupported,
)
from toolbus_executor.providers.translation.chat_to_messages.conversation import conversation
from toolbus_executor.providers.translation.chat_to_messages.effort import thinking

# Fields without an effect on the response: accounting, caching, speed, and a seed, which is only a
# best effort. The verbosity is a hint about the style.
_DROPPED = frozenset(
    (
        *("metadata", "store", "service_tier", "prediction", "seed", "verbosity"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "top_logprobs"),
    )
)
_KNOWN = frozenset(chat.Request.__struct_fields__) | _DROPPED
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_EMPTY_SCHEMA: dict[str, Any] = {"type": "object", "properties": {}}


def messages_request(body: dict[str, Any], max_output: int) -> dict[str, Any]:
    """Return the request for the provider.

    `max_output` is the limit of output tokens of a request without a limit; the messages API
    requires one.
    """
    check_fields(body, _KNOWN, MESSAGES_API)
    request = read(body, chat.Request)
    _check_values(request)
    system, turns = conversation(request.messages)
    # The smaller limit, because the budget may have been reserved by either of them.
    limits = [n for n in (request.max_completion_tokens, request.max_tokens) if n is not None]
    limit = min(limits, default=max_output)
    made: dict[str, Any] = {"model": request.model, "max_tokens": limit, "messages": turns}
    if system:
        made["system"] = system
    for name in ("temperature", "top_p", "top_k"):
        if (value := getattr(request, name)) is not None:
            made[name] = value
    if stop := [request.stop] if isinstance(request.stop, str) else request.stop:
        made["stop_sequences"] = stop
    if request.stream:
        made["stream"] = True
    made |= _tools(request)
    forced = made.get("tool_choice", {}).get("type") in ("any", "tool")
    effort, output = thinking(request.reasoning_effort, request.model, limit, turns, forced=forced)
    made |= effort
    if effort.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        for name in ("temperature", "top_p", "top_k"):  # the API refuses them with thinking
            made.pop(name, None)
    output |= _format(request.response_format)
    if output:
        made["output_config"] = output
    if user := request.safety_identifier or request.user:
        made["metadata"] = {"user_id": user}
    return made


def _check_values(request: chat.Request) -> None:
    if request.n is not None and request.n != 1:
        raise unsupported("several choices ('n')", MESSAGES_API, "Send several requests instead")
    if request.temperature is not None and not 0 <= request.temperature <= 1:
        raise unsupported(
            "a 'temperature' above 1", MESSAGES_API, "Use a temperature between 0 and 1"
        )
    for name in ("presence_penalty", "frequency_penalty", "logit_bias", "logprobs"):
        if getattr(request, name):
            raise unsupported(f"the field '{name}'", MESSAGES_API)
    if request.modalities and set(request.modalities) != {"text"}:
        raise unsupported("other 'modalities' than text", MESSAGES_API)


def _tools(request: chat.Request) -> dict[str, Any]:
    """Return the fields for the tools and the tool choice."""
    if not request.tools:
        return {}
    tools, choice = request.tools, request.tool_choice
    made: dict[str, Any] = {}
    if isinstance(choice, chat.ToolChoice):
        if choice.type == "function" and choice.function:
            made = {"type": "tool", "name": choice.function.name}
        elif choice.type == "allowed_tools" and choice.allowed_tools:
            names = {each.function.name for each in choice.allowed_tools.tools if each.function}
            tools = [each for each in tools if each.function and each.function.name in names]
            made = _mode(choice.allowed_tools.mode)
        else:
            raise unsupported(f"the tool choice '{choice.type[:64]}'", MESSAGES_API)
    elif choice is not None:
        made = _mode(choice)
    if request.parallel_tool_calls is False and made.get("type") != "none":
        made = {"type": "auto", **made, "disable_parallel_tool_use": True}
    return {"tools": [_tool(each) for each in tools]} | ({"tool_choice": made} if made else {})


def _mode(mode: str) -> dict[str, Any]:
    if mode not in _CHOICES:
        raise InvalidError(
            f"The tool choice '{mode[:64]}' is unknown. Use auto, required, none or a function."
        )
    return {"type": _CHOICES[mode]}


def _tool(tool: chat.Tool) -> dict[str, Any]:
    function = tool.function
    if tool.type != "function" or function is None:
        raise unsupported(f"a tool of the type '{tool.type[:64]}'", MESSAGES_API)
    schema = function.parameters or _EMPTY_SCHEMA
    made: dict[str, Any] = {
        "name": function.name,
        "input_schema": schema if "type" in schema else {"type": "object", **schema},
    }
    if function.description is not None:
        made["description"] = function.description
    if function.strict:
        made["strict"] = True
    return made


def _format(form: chat.ResponseFormat | None) -> dict[str, Any]:
    if form is None or form.type == "text":
        return {}
    if form.type != "json_schema" or form.json_schema is None or form.json_schema.schema is None:
        raise unsupported(
            f"the response format '{form.type[:64]}' without a schema",
            MESSAGES_API,
            "Use the response format json_schema with a schema",
        )
    return {"format": {"type": "json_schema", "schema": form.json_schema.schema}}
