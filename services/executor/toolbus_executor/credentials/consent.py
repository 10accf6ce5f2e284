"""What a caller is told whose person must consent first, in a form it understands."""

from typing import Any

import msgspec

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_executor.credentials.oauth_token import UnconsentedError
from toolbus_executor.mcp_messages.client_capabilities import URL, kinds_of

QUESTION = "toolbus.connect"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ConsentReply(msgspec.Struct):
    """A call without what it answers of ours, and that answer: empty where it brings none."""

    call: CallAdmitted
    action: str = ""


def answered(call: CallAdmitted) -> ConsentReply:
    """Take the answer to our question out of a call, as it is none of the server's."""
    if QUESTION not in call.extra:
        return ConsentReply(call)
    members = _members(call.extra)
    try:
        answers = _members(members.get("inputResponses", msgspec.Raw(b"{}")))
    except msgspec.DecodeError:
        return ConsentReply(call)
    raw = answers.pop(QUESTION, None)
    if raw is None:
        return ConsentReply(call)
    if answers:
        members["inputResponses"] = msgspec.Raw(msgspec.json.encode(answers))
    else:
        members.pop("inputResponses", None)
    extra = msgspec.json.encode(members).decode() if members else ""
    told = msgspec.json.decode(raw)
    action = told.get("action") if isinstance(told, dict) else None
    action = action if action in ("accept", "decline") else "cancel"
    return ConsentReply(call.model_copy(update={"extra": extra}), action)


def told(call: CallAdmitted, error: UnconsentedError, server: str) -> bytes:
    """The result of a call without a token. Raises the error where no result can say it."""
    if error.link and URL in kinds_of(call.capabilities):
        message = f"Connect your account to use {server}. Open the page, then go on."
        params = {"mode": "url", "message": message, "url": error.link}
        question = {"method": "elicitation/create", "params": params}
        asked = {"resultType": "input_required", "inputRequests": {QUESTION: question}}
        return msgspec.json.encode(asked)
    if call.method != TOOLS_CALL:
        raise _with_link(error)
    return failed(_with_link(error).reason)


def declined(server: str) -> bytes:
    """The result of a call whose person said no."""
    return failed(f"{server} was not called: its person did not want to connect an account.")


def failed(sentence: str) -> bytes:
    """A tool's result that says what went wrong."""
    return result(sentence, is_error=True)


def result(sentence: str, *, is_error: bool = False) -> bytes:
    """A tool's result of one sentence."""
    content: dict[str, Any] = {"content": [{"type": "text", "text": sentence}]}
    return msgspec.json.encode({**content, "isError": is_error})


def _with_link(error: UnconsentedError) -> UnconsentedError:
    if not error.link:
        return error
    reason = f"{error.reason} Have the person open {error.link} and sign in, then call again."
    return UnconsentedError(reason)
