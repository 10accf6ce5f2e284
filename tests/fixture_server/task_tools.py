"""Tools that may or must run as tasks."""

from .call import Call
from .client_requests import NAME, filled
from .content import BOOLEAN, NUMBER, STRING, form, tool_result
from .registry import Place, takes, tool
from .wire import INTERNAL_ERROR, Json, RefusedError


@tool("slow_compute", takes(seconds=NUMBER, label=STRING), task="optional")
async def slow_compute(call: Call, place: Place) -> Json:
    """Works for the given number of seconds."""
    seconds = float(call.arguments.get("seconds", 1))
    await place.sleep(seconds)
    return tool_result(f"{call.arguments.get('label', 'work')} done in {seconds:g} s")


@tool("failing_job", task="required")
async def failing_job(_call: Call, place: Place) -> Json:
    """Works for a moment and fails."""
    await place.sleep(0.3)
    return tool_result("The job failed, as it always does.", is_error=True)


@tool("protocol_error_job", task="required")
async def protocol_error_job(_call: Call, place: Place) -> Json:
    """Works for a moment and fails with a protocol error."""
    await place.sleep(0.1)
    raise RefusedError(INTERNAL_ERROR, "The job broke.")


@tool("confirm_delete", takes(filename=STRING), task="optional")
async def confirm_delete(call: Call, _place: Place) -> Json:
    """Elicits a confirmation before it deletes."""
    name = call.arguments.get("filename", "the file")
    answers = await call.ask({"confirm": form(f"Delete {name}?", confirm=BOOLEAN)})
    agreed = filled(answers["confirm"], "confirm") == "True"
    return tool_result(f"{name} is {'deleted' if agreed else 'kept'}")


@tool("confirm_job", task="required")
async def confirm_job(call: Call, _place: Place) -> Json:
    """Elicits a confirmation before it works; runs only as a task."""
    answers = await call.ask({"confirm": form("Work?", confirm=BOOLEAN)})
    return tool_result(f"agreed: {filled(answers['confirm'], 'confirm')}")


@tool("multi_input", task="optional")
async def multi_input(call: Call, _place: Place) -> Json:
    """Sends two requests at once."""
    request = {"first": NAME, "second": form("Go on?", confirm=BOOLEAN)}
    answers = await call.ask(request)
    return tool_result(f"received {', '.join(sorted(answers))}")


async def _ask_name(call: Call, _place: Place) -> Json:
    return await call.ask({"user_name": NAME}, stateful=True)


@tool("test_tool_with_task", task="required", before=_ask_name)
async def tool_with_task(call: Call, place: Place) -> Json:
    """Elicits a name first, then continues as a task."""
    await place.sleep(0.2)
    return tool_result(f"Worked for {filled(call.params['before']['user_name'], 'name')}")
