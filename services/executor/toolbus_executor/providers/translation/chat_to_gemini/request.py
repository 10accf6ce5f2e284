"""Translation of a request of the chat completions API to the API of Gemini."""

import re
from typing import Any

from toolbus_common.errors import InvalidError
from toolbus_executor.providers.translation.apis import chat
from toolbus_executor.providers.translation.body import GEMINI_API, check_fields, read, unsupported
from toolbus_executor.providers.translation.chat_to_gemini.conversation import conversation

# Fields without an effect on the response: accounting, caching, storage, speed, style.
_DROPPED = frozenset(
    (
        *("metadata", "store", "service_tier", "prediction", "verbosity", "user", "top_logprobs"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
        "safety_identifier",
    )
)
_KNOWN = frozenset(chat.GeminiRequest.__struct_fields__) | _DROPPED
_MODES = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
_COPIED = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
# Models with a level of thinking, and those with a budget of tokens; others do not think.
# Source: "Thinking" and "OpenAI compatibility" in the documentation of the Gemini API.
_LEVELED, _BUDGETED = re.compile(r"gemini-([3-9]|\d{2})"), re.compile(r"gemini-2\.5")
# Thinking of these models cannot be disabled.
_LEVELS = {"none": "low", "minimal": "low", "low": "low", "medium": "medium", "high": "high"}
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_EFFORTS = (*_BUDGETS, *chat.MAX_EFFORTS)


def gemini_request(body: dict[str, Any], max_output: int | None) -> dict[str, Any]:
    """Return the request for the provider. Its URL contains the model.

    `max_output` is the limit of output tokens of a request without a limit; None for no limit.
    """
    check_fields(body, _KNOWN, GEMINI_API)
    request = read(body, chat.GeminiRequest)
    _check_values(request)
    system, contents = conversation(request.messages, request.model)
    made: dict[str, Any] = {"contents": contents}
    if system:
        made["systemInstruction"] = {"parts": system}
    if request.tools:
        made |= _tools(request)
    if configuration := _configuration(request, max_output):
        made["generationConfig"] = configuration
    return made


def _check_values(request: chat.Request) -> None:
    if request.n is not None and request.n != 1:
        raise unsupported("several choices ('n')", GEMINI_API, "Send several requests instead")
    for name in ("logit_bias", "logprobs"):
        if getattr(request, name):
            raise unsupported(f"the field '{name}'", GEMINI_API)
    if request.modalities and set(request.modalities) != {"text"}:
        raise unsupported("other 'modalities' than text", GEMINI_API)
    if request.parallel_tool_calls is False and request.tools:
        raise unsupported("'parallel_tool_calls: false'", GEMINI_API)


def _configuration(request: chat.GeminiRequest, max_output: int | None) -> dict[str, Any]:
    made = {
        to: value for name, to in _COPIED.items() if (value := getattr(request, name)) is not None
    }
    # The smaller limit, because the budget may have been reserved by either of them. A limit of 0
    # would be no limit.
    limits = [n for n in (request.max_completion_tokens, request.max_tokens) if n is not None]
    limit = min(limits, default=max_output)
    if limit is not None:
        made["maxOutputTokens"] = limit or max_output or 1
    if stop := [request.stop] if isinstance(request.stop, str) else request.stop:
        made["stopSequences"] = stop
    if thinking := _thinking(request):
        made["thinkingConfig"] = thinking
    return made | _format(request.response_format)


def _thinking(request: chat.GeminiRequest) -> dict[str, Any]:
    """Return the configuration of thinking. It is a hint, so models that do not think get none."""
    effort, model = request.reasoning_effort, request.model
    if effort is not None and effort not in _EFFORTS:
        raise InvalidError(
            f"The reasoning effort '{effort[:64]}' is unknown. Use one of {', '.join(_EFFORTS)}."
        )
    is_leveled = bool(_LEVELED.search(model))
    if not is_leveled and not _BUDGETED.search(model):
        return {}
    thinking = request.thinking
    if thinking is not None and thinking.budget_tokens is not None:
        return {"includeThoughts": True, "thinkingBudget": thinking.budget_tokens}
    if thinking is not None and effort is None:
        effort = "none" if thinking.type == "disabled" else ""
    if effort is None:
        return {}
    made: dict[str, Any] = {} if effort == "none" else {"includeThoughts": True}
    effort = chat.MAX_EFFORTS.get(effort, effort)
    if effort and is_leveled:
        made["thinkingLevel"] = _LEVELS[effort]
    elif effort:
        made["thinkingBudget"] = _BUDGETS[effort]
    return made  # without an effort, the model chooses it


def _format(form: chat.ResponseFormat | None) -> dict[str, Any]:
    if form is None or form.type == "text":
        return {}
    if form.type not in ("json_object", "json_schema"):
        raise unsupported(f"the response format '{form.type[:64]}'", GEMINI_API)
    made: dict[str, Any] = {"responseMimeType": "application/json"}
    if form.json_schema is not None and form.json_schema.schema is not None:
        made["responseJsonSchema"] = form.json_schema.schema
    return made


def _tools(request: chat.Request) -> dict[str, Any]:
    """Return the fields for the tools and the tool choice."""
    functions = [_function(each) for each in request.tools or ()]
    made: dict[str, Any] = {"tools": [{"functionDeclarations": functions}]}
    choice = request.tool_choice
    if isinstance(choice, chat.ToolChoice):
        calling = _named_choice(choice)
    elif choice is not None:
        calling = {"mode": _mode(choice)}
    else:
        return made
    return made | {"toolConfig": {"functionCallingConfig": calling}}


def _named_choice(choice: chat.ToolChoice) -> dict[str, Any]:
    if choice.type == "function" and choice.function:
        return {"mode": "ANY", "allowedFunctionNames": [choice.function.name]}
    if choice.type == "allowed_tools" and choice.allowed_tools:
        allowed = choice.allowed_tools
        names = [each.function.name for each in allowed.tools if each.function]
        # VALIDATED permits text too, but only these functions.
        mode = "ANY" if _mode(allowed.mode) == "ANY" else "VALIDATED"
        return {"mode": mode, "allowedFunctionNames": names}
    raise unsupported(f"the tool choice '{choice.type[:64]}'", GEMINI_API)


def _mode(mode: str) -> str:
    if mode not in _MODES:
        raise InvalidError(
            f"The tool choice '{mode[:64]}' is unknown. Use auto, required, none or a function."
        )
    return _MODES[mode]


def _function(tool: chat.Tool) -> dict[str, Any]:
    function = tool.function
    if tool.type != "function" or function is None:
        raise unsupported(f"a tool of the type '{tool.type[:64]}'", GEMINI_API)
    made: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        made["description"] = function.description
    if function.parameters is not None:
        made["parametersJsonSchema"] = function.parameters
    return made
