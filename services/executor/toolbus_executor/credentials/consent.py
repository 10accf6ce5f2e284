"""Replies to a caller whose user must consent first, in a form that the client supports."""

from typing import Any

import msgspec

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_executor.credentials.oauth_token import ConsentRequiredError
from toolbus_executor.mcp_messages.client_capabilities import URL, kinds_of

QUESTION = "toolbus.connect"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ConsentReply(msgspec.Struct):
    """A call without its answer to the consent question, and the action of that answer.

    `action` is `accept`, `decline` or `cancel`; it is empty if the call contains no such answer.
    """

    call: CallAdmitted
    action: str = ""


def take_answer(call: CallAdmitted) -> ConsentReply:
    """Return the call without its answer to the consent question, and the answer's action."""
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
    consent_required = msgspec.json.decode(raw)
    action = consent_required.get("action") if isinstance(consent_required, dict) else None
    action = action if action in ("accept", "decline") else "cancel"
    return ConsentReply(call.model_copy(update={"extra": extra}), action)


def consent_required(call: CallAdmitted, error: ConsentRequiredError, server: str) -> bytes:
    """Return the result of a call that has no token: a question to the user, or a failed result.

    Raises:
        ConsentRequiredError: results of this method cannot contain the link.

    """
    if error.link and URL in kinds_of(call.capabilities):
        message = f"Connect your account to use {server}. Open the page, then continue."
        params = {"mode": "url", "message": message, "url": error.link}
        question = {"method": "elicitation/create", "params": params}
        result = {"resultType": "input_required", "inputRequests": {QUESTION: question}}
        return msgspec.json.encode(result)
    if call.method != TOOLS_CALL:
        raise _with_link(error)
    return failed(_with_link(error).reason)


def declined(server: str) -> bytes:
    """Return a tool result for a call whose user declined to connect an account."""
    return failed(
        f"{server} was not called, because the user declined to connect an account. To connect "
        "one, call the tool again."
    )


def failed(text: str) -> bytes:
    """Return a tool result that reports an error."""
    return result(text, is_error=True)


def result(text: str, *, is_error: bool = False) -> bytes:
    """Return a tool result with one text."""
    content: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    return msgspec.json.encode({**content, "isError": is_error})


def _with_link(error: ConsentRequiredError) -> ConsentRequiredError:
    if not error.link:
        return error
    reason = f"{error.reason} Ask the user to open {error.link} and sign in, then call again."
    return ConsentRequiredError(reason)
