"""Resources, prompts and completion."""

import json
import re

from .call import Call
from .client_requests import NAME, filled
from .content import PNG, STRING, embedded, form, image, message, text
from .tools import WATCHED
from .wire import INVALID_PARAMS, RESOURCE_NOT_FOUND, Json, ProtocolFamily, RefusedError

RESOURCES: list[Json] = [
    {
        "uri": "test://static-text",
        "name": "static-text",
        "title": "Static text",
        "description": "A text that never changes.",
        "mimeType": "text/plain",
    },
    {"uri": "test://static-binary", "name": "static-binary", "mimeType": "image/png"},
    {"uri": WATCHED, "name": "watched-resource", "mimeType": "text/plain"},
    {"uri": "test://asks-first", "name": "asks-first", "mimeType": "text/plain"},
    {"uri": "ui://fixture/panel", "name": "panel", "mimeType": "text/html;profile=mcp-app"},
]
TEMPLATES: list[Json] = [
    {
        "uriTemplate": "test://template/{id}/data",
        "name": "template",
        "description": "Data of one id.",
        "mimeType": "application/json",
    }
]
_TEMPLATE = re.compile(r"test://template/([^/]+)/data")
_TEXTS = {
    "test://static-text": "This is the content of the static text resource.",
    WATCHED: "Watched resource content",
}


def _argument(name: str) -> Json:
    return {"name": name, "description": f"The {name}.", "required": True}


PROMPTS: list[Json] = [
    {"name": "test_simple_prompt", "title": "Simple", "description": "A prompt of one message."},
    {
        "name": "test_prompt_with_arguments",
        "description": "A prompt that repeats its arguments.",
        "arguments": [_argument("arg1"), _argument("arg2")],
    },
    {
        "name": "test_prompt_with_embedded_resource",
        "description": "A prompt with a resource inside.",
        "arguments": [_argument("resourceUri")],
    },
    {"name": "test_prompt_with_image", "description": "A prompt with a picture."},
    {"name": "test_input_required_result_prompt", "description": "A prompt that asks first."},
]
_COMPLETIONS = ("paris", "park", "party", "test1", "test2")


async def read(call: Call) -> Json:
    """Return the contents of a resource."""
    uri = call.params.get("uri")
    if not isinstance(uri, str):
        raise RefusedError(INVALID_PARAMS, "resources/read needs a uri.", status=400)
    return {"contents": [{"uri": uri, **await _contents(call, uri)}]}


async def _contents(call: Call, uri: str) -> Json:
    if uri in _TEXTS:
        return {"mimeType": "text/plain", "text": _TEXTS[uri]}
    if uri == "test://static-binary":
        return {"mimeType": "image/png", "blob": PNG}
    if uri == "ui://fixture/panel":
        html = "<!doctype html><title>panel</title>"
        return {
            "mimeType": "text/html;profile=mcp-app",
            "text": html,
            "_meta": {"ui": {"csp": {"connectDomains": []}}},
        }
    if uri == "test://asks-first":
        answers = await call.ask({"user_name": NAME})
        return {"mimeType": "text/plain", "text": f"For {filled(answers['user_name'], 'name')}"}
    if match := _TEMPLATE.fullmatch(uri):
        data = {"id": match[1], "templateTest": True, "data": f"Data for ID: {match[1]}"}
        return {"mimeType": "application/json", "text": json.dumps(data)}
    code = INVALID_PARAMS if call.family is ProtocolFamily.MODERN else RESOURCE_NOT_FOUND
    raise RefusedError(code, "Resource not found", {"uri": uri})


async def prompt(call: Call) -> Json:
    """Return the messages of a prompt."""
    name, given = call.params.get("name"), call.arguments
    if name == "test_simple_prompt":
        return {"messages": [message(text("This is a simple prompt for testing."))]}
    if name == "test_prompt_with_arguments":
        words = f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
        return {"messages": [message(text(words))]}
    if name == "test_prompt_with_embedded_resource":
        inside = embedded(str(given.get("resourceUri")), "Embedded resource content for testing.")
        request = text("Please process the embedded resource above.")
        return {"messages": [message(inside), message(request)]}
    if name == "test_prompt_with_image":
        request = text("Please analyze the image above.")
        return {"messages": [message(image()), message(request)]}
    if name == "test_input_required_result_prompt":
        requested = form("What context should the prompt use?", context=STRING)
        answers = await call.ask({"user_context": requested})
        words = f"Prompt with context: {filled(answers['user_context'], 'context')}"
        return {"messages": [message(text(words))]}
    raise RefusedError(INVALID_PARAMS, f"There is no prompt {name!r}.")


def complete(call: Call) -> Json:
    """Return the values with a prefix."""
    reference, argument = call.params.get("ref"), call.params.get("argument")
    if not isinstance(reference, dict) or not isinstance(argument, dict):
        raise RefusedError(
            INVALID_PARAMS, "completion/complete needs ref and argument.", status=400
        )
    known = {entry["name"] for entry in PROMPTS} | {entry["uriTemplate"] for entry in TEMPLATES}
    if (reference.get("name") or reference.get("uri")) not in known:
        raise RefusedError(INVALID_PARAMS, "There is nothing of this name to complete.")
    typed = str(argument.get("value", ""))
    values = [value for value in _COMPLETIONS if value.startswith(typed)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}
