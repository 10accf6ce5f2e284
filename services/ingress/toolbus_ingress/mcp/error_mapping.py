"""How a request failed, in the words of its family: a server's own error stays what it was."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import ProtocolFamily
from toolbus_common.errors import (
    InvalidArgumentsError,
    ToolbusError,
    UnknownToolError,
    UpstreamRefusedError,
)
from toolbus_ingress.http.jsonrpc import (
    BAD_REQUEST,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    NO_RESOURCE,
    OK,
    Response,
    error,
    failure,
    result,
    told_within,
)
from toolbus_ingress.mcp.request_target import Subject
from toolbus_ingress.protocol_versions import Request

FAILED = "dev.toolbus/failed"  # of a result's `_meta`: why Toolbus did not ask the tool
URL_REQUIRED = -32042  # of 2025-11-25; the stateless family has no such code
_LONGEST_ASKED = 512
_MOST_PAGES, _LONGEST_PAGE = 8, 2048
_STATUS = {MISSING_CAPABILITY: BAD_REQUEST, METHOD_NOT_FOUND: 404}


def told(failed: ToolbusError, request: Request, call_id: str) -> Response:
    """The failure of a request: a server's own error as it is, but for what the family renames."""
    code = failed.data.get("upstream_code") if isinstance(failed, UpstreamRefusedError) else None
    modern = request.family is ProtocolFamily.MODERN
    if isinstance(failed, InvalidArgumentsError) and "task" not in request.params:
        return _misfit(failed, request, call_id)
    if isinstance(failed, UnknownToolError) and request.method.startswith("resources/"):
        code = NO_RESOURCE
    if not isinstance(code, int):
        return failure(failed, request.id, call_id)
    if code == URL_REQUIRED and modern:
        return _page_required(failed, request)
    if code == NO_RESOURCE and modern:
        code = INVALID_PARAMS
    elif code == INVALID_PARAMS and request.method == "resources/read" and not modern:
        code = NO_RESOURCE
    status = _STATUS.get(code, OK) if modern else OK
    data = failed.data.get("upstream_data")
    if isinstance(failed, UnknownToolError):
        data = {"uri": request.params.get("uri")}
    return error(status, code, failed.reason, request_id=request.id, data=data)


def as_asked(failed: ToolbusError, request: Request, subject: Subject | None) -> ToolbusError:
    """The failure by the name that was asked for: an endpoint tells no other name of a thing."""
    asked = _asked(request.params)
    if not asked or subject is None or isinstance(failed, UpstreamRefusedError):
        return failed
    if isinstance(failed, UnknownToolError):
        return UnknownToolError.named(asked, request.method)
    full = full_name(subject.server, subject.name)
    if full == asked or full not in failed.reason:
        return failed
    whole = re.compile(rf"(?<![\w-]){re.escape(full)}(?![\w-])")
    renamed = whole.sub(lambda _: asked, failed.reason)
    data = {name: asked if value == full else value for name, value in failed.data.items()}
    return type(failed)(renamed, **data)


def _asked(params: dict[str, Any]) -> str:
    """The name or URI that a request is about, as its caller wrote it; empty where it has none."""
    ref = params.get("ref")
    about = ref if isinstance(ref, dict) else params
    found = about.get("name") or about.get("uri")
    return found[:_LONGEST_ASKED] if isinstance(found, str) else ""


def _misfit(failed: ToolbusError, request: Request, call_id: str) -> Response:
    """Arguments that do not fit, as a tool's own error: that is what models get to read.

    MCP wants it so since 2025-11-25; every revision before knows such results too.
    """
    told = {**told_within(failed)["data"], "callId": call_id}
    body: dict[str, Any] = {
        "content": [{"type": "text", "text": failed.reason}],
        "isError": True,
        "_meta": {FAILED: told},
    }
    if request.family is ProtocolFamily.MODERN:
        body["resultType"] = "complete"
    return result(request.id, msgspec.json.encode(body))


def _page_required(failed: ToolbusError, request: Request) -> Response:
    """A server wants pages opened first, and its caller did not say that it opens any."""
    pages = " ".join(_pages(failed.data.get("upstream_data")))
    sentence = f"{failed.reason} Declare elicitation.url, or open the page and retry: {pages}"
    data: Any = {"requiredCapabilities": {"elicitation": {"url": {}}}}
    return error(BAD_REQUEST, MISSING_CAPABILITY, sentence, request_id=request.id, data=data)


def _pages(told: Any) -> Iterator[str]:
    pages = told.get("elicitations") if isinstance(told, dict) else None
    for page in pages[:_MOST_PAGES] if isinstance(pages, list) else ():
        url = page.get("url") if isinstance(page, dict) else None
        if isinstance(url, str) and len(url) <= _LONGEST_PAGE:
            yield url
