"""The dialect of each method, and a client's request as its dialect reads it."""

from toolbus_codemode.agent.dialects import chat, messages, responses
from toolbus_codemode.agent.dialects.base import Dialect, Json, Turn, parsed_request
from toolbus_common.contracts.model_calls import CHAT, MESSAGES, RESPONSES
from toolbus_common.model_api.tool_forms import Form

DIALECTS: dict[str, Dialect] = {CHAT: chat, RESPONSES: responses, MESSAGES: messages}
FORMS = {CHAT: Form.CHAT, RESPONSES: Form.RESPONSES, MESSAGES: Form.MESSAGES}


def request_of(method: str, raw: bytes) -> Json:
    """Return the body of a client's request. Raises `InvalidError`."""
    return parsed_request(raw, "input" if method == RESPONSES else "messages")


def earlier_runs(method: str, body: Json) -> list[str]:
    """Return the earlier runs whose turns the conversation needs."""
    return chat.pending_runs(body) if method == CHAT else []


def restored(method: str, body: Json, runs: dict[str, list[Turn]]) -> Json:
    """Return the body with the executed calls of earlier runs restored to the model's own form."""
    if method == CHAT:
        return chat.restored(body, runs)
    return messages.restored(body) if method == MESSAGES else responses.restored(body)
