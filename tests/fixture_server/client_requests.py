"""Tools that send requests to the client: in rounds or, in the handshake family, directly."""

import json

from .call import Call
from .content import BOOLEAN, STRING, form, optional_form, roots, sample, tool_result
from .registry import Place, takes, tool
from .wire import MISSING_CAPABILITY, URL_ELICITATION_REQUIRED, Json, ProtocolFamily, RefusedError

NAME = form("What is your name?", name=STRING)
CONFIRM = form("Please confirm", ok=BOOLEAN)
MODES: Json = {
    "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
    "titledSingle": {
        "type": "string",
        "oneOf": [{"const": f"value{n}", "title": f"Option {n}"} for n in (1, 2, 3)],
    },
    "legacyEnum": {
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {
        "type": "array",
        "minItems": 1,
        "maxItems": 3,
        "items": {"type": "string", "enum": ["option1", "option2", "option3"]},
    },
    "titledMulti": {
        "type": "array",
        "minItems": 1,
        "maxItems": 3,
        "items": {"anyOf": [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]},
    },
}
DEFAULTS: Json = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}


def filled(answer: Json, field: str) -> str:
    """Return the accepted form content, or how the client declined."""
    if answer.get("action") != "accept":
        return str(answer.get("action"))
    return str((answer.get("content") or {}).get(field))


async def elicit(call: Call, request: Json, prefix: str) -> Json:
    """Elicit once and return the whole answer."""
    try:
        answer = (await call.ask({"answer": request}))["answer"]
    except RefusedError as refusal:
        if call.family is ProtocolFamily.MODERN:
            raise
        return tool_result(f"Elicitation not supported or error: {refusal}", is_error=True)
    content = json.dumps(answer.get("content") or {})
    return tool_result(f"{prefix}: action={answer.get('action')}, content={content}")


@tool("test_sampling", takes(("prompt",), prompt=STRING))
async def sampling(call: Call, _place: Place) -> Json:
    """Samples from the client's model."""
    answers = await call.ask({"answer": sample(str(call.arguments.get("prompt")))})
    return tool_result(f"LLM response: {_sampled(answers['answer'])}")


@tool("test_elicitation", takes(("message",), message=STRING))
async def elicitation(call: Call, _place: Place) -> Json:
    """Elicits from the user."""
    request = form(str(call.arguments.get("message")), response=STRING)
    return await elicit(call, request, "User response")


@tool("test_elicitation_sep1034_defaults")
async def elicitation_defaults(call: Call, _place: Place) -> Json:
    """Elicits from the user with default values."""
    request = optional_form("Please review the defaults", DEFAULTS)
    return await elicit(call, request, "Elicitation completed")


@tool("test_elicitation_sep1330_enums")
async def elicitation_enums(call: Call, _place: Place) -> Json:
    """Elicits a choice from the user."""
    request = optional_form("Please select options", MODES)
    return await elicit(call, request, "Elicitation completed")


@tool("test_elicitation_url")
async def elicitation_url(call: Call, _place: Place) -> Json:
    """Asks the user to open a page."""
    params = {"mode": "url", "message": "Please sign in", "url": "https://example.org/sign-in"}
    if call.family is ProtocolFamily.LEGACY:
        params["elicitationId"] = "fixture-elicitation-1"
    return await elicit(call, {"method": "elicitation/create", "params": params}, "Page")


@tool("test_url_elicitation_required")
async def url_required(call: Call, place: Place) -> Json:
    """Fails with a page to open, as handshake-family servers do."""
    if call.family is ProtocolFamily.MODERN:
        return await elicitation_url(call, place)
    page = {
        "mode": "url",
        "message": "Please sign in",
        "url": "https://example.org/sign-in",
        "elicitationId": "fixture-elicitation-2",
    }
    raise RefusedError(URL_ELICITATION_REQUIRED, "Sign in first.", {"elicitations": [page]})


@tool("test_input_required_result_elicitation")
async def round_elicitation(call: Call, _place: Place) -> Json:
    """Elicits the user's name."""
    answers = await call.ask({"user_name": NAME})
    return tool_result(f"Hello, {filled(answers['user_name'], 'name')}!")


@tool("test_input_required_result_sampling")
async def round_sampling(call: Call, _place: Place) -> Json:
    """Samples a capital from the client's model."""
    answers = await call.ask({"capital_question": sample("What is the capital of France?")})
    return tool_result(f"The model says: {_sampled(answers['capital_question'])}")


@tool("test_input_required_result_list_roots")
async def round_roots(call: Call, _place: Place) -> Json:
    """Requests the client's roots."""
    answers = await call.ask({"client_roots": roots()})
    return tool_result(f"Found {len(answers['client_roots'].get('roots', []))} root(s)")


@tool("test_input_required_result_request_state")
async def round_state(call: Call, _place: Place) -> Json:
    """Requests a confirmation and stores its request in the state."""
    await call.ask({"confirm": CONFIRM}, stateful=True)
    return tool_result("state-ok: what was remembered came back")


@tool("test_input_required_result_tampered_state")
async def round_tampered(call: Call, _place: Place) -> Json:
    """Requests a confirmation and rejects a state that is not its own."""
    await call.ask({"confirm": CONFIRM}, stateful=True)
    return tool_result("integrity-ok: the state was ours")


@tool("test_input_required_result_multiple_inputs")
async def round_multiple(call: Call, _place: Place) -> Json:
    """Sends requests to the user, the model and the client at once."""
    request = {
        "user_name": NAME,
        "greeting": sample("Generate a greeting", 50),
        "client_roots": roots(),
    }
    answers = await call.ask(request, stateful=True)
    name = filled(answers["user_name"], "name")
    count = len(answers["client_roots"].get("roots", []))
    return tool_result(f"Name: {name}; Greeting: {_sampled(answers['greeting'])}; Roots: {count}")


@tool("test_input_required_result_multi_round")
async def round_twice(call: Call, _place: Place) -> Json:
    """Elicits from the user twice, one after the other."""
    first = await call.ask({"step1": form("Step 1: your name?", name=STRING)}, stateful=True)
    second = await call.ask({"step2": form("Step 2: your color?", color=STRING)}, stateful=True)
    name, color = filled(first["step1"], "name"), filled(second["step2"], "color")
    return tool_result(f"Multi-round complete for {name} who likes {color}")


@tool("test_input_required_result_capabilities")
async def round_capabilities(call: Call, _place: Place) -> Json:
    """Sends only requests that the client supports."""
    possible = {
        "elicitation": ("elicit_input", form("A value?", value=STRING)),
        "sampling": ("sample_input", sample("Say something", 50)),
        "roots": ("roots_input", roots()),
    }
    request = dict(entry for capability, entry in possible.items() if call.can(capability))
    if not request:
        message = "The client can answer nothing."
        data: Json = {"requiredCapabilities": {"elicitation": {}}}
        raise RefusedError(MISSING_CAPABILITY, message, data, status=400)
    answers = await call.ask(request)
    return tool_result(f"capabilities-ok: received {', '.join(sorted(answers))}")


def _sampled(answer: Json) -> str:
    content = answer.get("content")
    blocks = content if isinstance(content, list) else [content]
    texts = [block.get("text", "") for block in blocks if isinstance(block, dict)]
    return " ".join(texts) or "no response"
