"""Tools without requests to the client: content, progress, logs, schemas, changes."""

import json

from .call import Call
from .content import NUMBER, STRING, audio, embedded, image, text, tool_result
from .registry import Place, takes, tool
from .wire import INTERNAL_ERROR, MISSING_CAPABILITY, UI, Json, RefusedError

WATCHED = "test://watched-resource"


@tool("test_simple_text")
async def simple_text(_call: Call, _place: Place) -> Json:
    """Answers with text."""
    return tool_result("This is a simple text response for testing.")


@tool("test_image_content")
async def image_content(_call: Call, _place: Place) -> Json:
    """Answers with an image."""
    return tool_result(image())


@tool("test_audio_content")
async def audio_content(_call: Call, _place: Place) -> Json:
    """Answers with audio."""
    return tool_result(audio())


@tool("test_embedded_resource")
async def embedded_resource(_call: Call, _place: Place) -> Json:
    """Answers with a resource in the result."""
    return tool_result(
        embedded("test://embedded-resource", "This is an embedded resource content.")
    )


@tool("test_multiple_content_types")
async def multiple_content_types(_call: Call, _place: Place) -> Json:
    """Answers with text, an image and a resource."""
    data = json.dumps({"test": "data", "value": 123})
    resource = embedded("test://mixed-content-resource", data, "application/json")
    return tool_result("Multiple content types test:", image(), resource)


@tool("test_tool_with_logging")
async def with_logging(call: Call, place: Place) -> Json:
    """Logs three times during the call."""
    for message in ("Tool execution started", "Tool processing data"):
        call.log("info", message)
        await place.sleep(0.05)
    call.log("info", "Tool execution completed")
    return tool_result("Tool with logging executed successfully")


@tool("test_logging_tool")
async def logging_tool(call: Call, _place: Place) -> Json:
    """Logs once, if the client wants it."""
    call.log("info", "One line of the log")
    return tool_result("Logging evaluated")


@tool("test_tool_with_progress")
async def with_progress(call: Call, place: Place) -> Json:
    """Reports progress three times."""
    for step in (0, 50, 100):
        call.progress(step, 100, f"Completed step {step} of 100")
        await place.sleep(0.05)
    return tool_result(str(call.meta.get("progressToken", "no token")))


@tool("test_streaming_elicitation")
async def streaming(call: Call, place: Place) -> Json:
    """Answers over a stream; a lax server also sends a request that the family forbids."""
    call.progress(50, 100, "Half of it")
    if call.lax:
        call.peer.notify({"jsonrpc": "2.0", "id": "stray", "method": "ping", "params": {}})
    await place.sleep(0.01)
    return tool_result("Streaming complete")


@tool("test_error_handling")
async def error_handling(_call: Call, _place: Place) -> Json:
    """Fails."""
    return tool_result("This tool intentionally returns an error for testing", is_error=True)


@tool("test_protocol_error")
async def protocol_error(_call: Call, _place: Place) -> Json:
    """Fails with a JSON-RPC error that has its own data."""
    raise RefusedError(INTERNAL_ERROR, "Out of order", {"reason": "by design"})


@tool("test_reconnection")
async def reconnection(call: Call, place: Place) -> Json:
    """Closes the connection during its answer, or waits long enough for others to do so."""
    paused = call.peer.pause()
    await place.sleep(0.1 if paused else 1.5)
    return tool_result("Reconnection test completed: the client came back for this.")


@tool("test_missing_capability")
async def missing_capability(call: Call, _place: Place) -> Json:
    """Requires a client that supports sampling."""
    if not call.can("sampling"):
        data: Json = {"requiredCapabilities": {"sampling": {}}}
        message = "This tool needs a client that offers sampling."
        raise RefusedError(MISSING_CAPABILITY, message, data, status=400)
    return tool_result("The client offers sampling.")


@tool("test_trigger_tool_change")
async def tool_change(_call: Call, place: Place) -> Json:
    """Notifies that the list of tools changed."""
    place.notifier.list_changed("toolsListChanged")
    return tool_result("The list of tools changed.")


@tool("test_trigger_prompt_change")
async def prompt_change(_call: Call, place: Place) -> Json:
    """Notifies that the list of prompts changed."""
    place.notifier.list_changed("promptsListChanged")
    return tool_result("The list of prompts changed.")


@tool("test_trigger_resource_change")
async def resource_change(_call: Call, place: Place) -> Json:
    """Notifies that the list of resources changed."""
    place.notifier.list_changed("resourcesListChanged")
    return tool_result("The list of resources changed.")


@tool("test_touch_watched_resource")
async def touch(_call: Call, place: Place) -> Json:
    """Notifies that the watched resource has new contents."""
    place.notifier.resource_updated(WATCHED)
    return tool_result("The watched resource has new contents.")


@tool("test_end_subscriptions")
async def end_subscriptions(_call: Call, place: Place) -> Json:
    """Ends every subscription with its final message."""
    place.notifier.end()
    return tool_result("The subscriptions are over.")


@tool("test_sleep", takes(("seconds",), seconds=NUMBER))
async def sleep(call: Call, place: Place) -> Json:
    """Waits for the given time, for tests of cancellation."""
    seconds = float(call.arguments.get("seconds", 1))
    await place.sleep(seconds)
    return tool_result(f"slept {seconds:g} s")


@tool("test_echo", takes(("text",), text=STRING))
async def echo(call: Call, _place: Place) -> Json:
    """Answers with its argument."""
    return tool_result(str(call.arguments.get("text")))


@tool("test_x_mcp_header", takes(("region",), region={"type": "string", "x-mcp-header": "Region"}))
async def x_mcp_header(call: Call, _place: Place) -> Json:
    """Takes an argument that a header repeats."""
    return tool_result(f"region: {call.arguments.get('region')}")


_ADDRESS = {
    "$anchor": "addressDef",
    "type": "object",
    "properties": {"street": STRING, "city": STRING},
}
_BY_PHONE = {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]}


@tool(
    "json_schema_2020_12_tool",
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": _ADDRESS},
        "properties": {
            "name": STRING,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": STRING,
            "email": STRING,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": _BY_PHONE,
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
)
async def json_schema(call: Call, _place: Place) -> Json:
    """Has an input schema with many keywords."""
    return tool_result(f"Called with {json.dumps(call.arguments)}")


@tool(
    "test_structured_content",
    outputSchema={"type": "object", "properties": {"celsius": NUMBER}, "required": ["celsius"]},
    title="Structured content",
    annotations={"readOnlyHint": True, "idempotentHint": True, "vendorHint": "kept"},
    icons=[{"src": "https://example.org/icon.png", "mimeType": "image/png", "sizes": ["48x48"]}],
    _meta={"example.org/kept": {"deep": [1, 2]}, "ui": {"resourceUri": "ui://fixture/panel"}},
)
async def structured(_call: Call, _place: Place) -> Json:
    """Answers with structured content and with members unknown to every revision."""
    block = {**text('{"celsius": 12.5}'), "annotations": {"priority": 0.5}, "x-extra": "kept"}
    return {
        "content": [block],
        "structuredContent": {"celsius": 12.5, "unit": None},
        "x-result-extra": {"kept": True},
        "_meta": {"example.org/kept": 1, UI: {}},
    }


@tool("greet", takes(("name",), name=STRING))
async def greet(call: Call, _place: Place) -> Json:
    """Greets."""
    return tool_result(f"Hello, {call.arguments.get('name')}!")
