"""Errors of a request in the form of its protocol family. A server's own error is passed on."""

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
    task_error,
)
from toolbus_ingress.mcp.request_target import CallTarget
from toolbus_ingress.protocol_versions import Request

FAILED = "dev.toolbus/failed"  # in a result's `_meta`: why Toolbus did not call the tool
URL_REQUIRED = -32042  # of 2025-11-25; the stateless family has no such code
_LONGEST_NAME = 512
_MAX_PAGES, _LONGEST_PAGE = 8, 2048
_STATUS = {MISSING_CAPABILITY: BAD_REQUEST, METHOD_NOT_FOUND: 404}


def error_response(failed: ToolbusError, request: Request, call_id: str) -> Response:
    """Return the response to a failed request.

    A server's own error keeps its code, except where the families use different codes.
    """
    code = failed.data.get("upstream_code") if isinstance(failed, UpstreamRefusedError) else None
    modern = request.family is ProtocolFamily.MODERN
    if isinstance(failed, InvalidArgumentsError) and "task" not in request.params:
        return _invalid_arguments_result(failed, request, call_id)
    if isinstance(failed, UnknownToolError) and request.method.startswith("resources/"):
        code = NO_RESOURCE
    if not isinstance(code, int):
        return failure(failed, request.id, call_id)
    if code == URL_REQUIRED and modern:
        return _url_required(failed, request)
    if code == NO_RESOURCE and modern:
        code = INVALID_PARAMS
    elif code == INVALID_PARAMS and request.method == "resources/read" and not modern:
        code = NO_RESOURCE
    status = _STATUS.get(code, OK) if modern else OK
    data = failed.data.get("upstream_data")
    if isinstance(failed, UnknownToolError):
        data = {"uri": request.params.get("uri")}
    return error(status, code, failed.reason, request_id=request.id, data=data)


def with_requested_name(
    failed: ToolbusError, request: Request, target: CallTarget | None
) -> ToolbusError:
    """Return the error with the name from the request, so that other names are not revealed."""
    requested = _requested_name(request.params)
    if not requested or target is None or isinstance(failed, UpstreamRefusedError):
        return failed
    if isinstance(failed, UnknownToolError):
        return UnknownToolError.named(requested, request.method)
    full = full_name(target.server, target.name)
    if full == requested or full not in failed.reason:
        return failed
    whole = re.compile(rf"(?<![\w-]){re.escape(full)}(?![\w-])")
    reason = whole.sub(lambda _: requested, failed.reason)
    data = {name: requested if value == full else value for name, value in failed.data.items()}
    return type(failed)(reason, **data)


def _requested_name(params: dict[str, Any]) -> str:
    """Return the name or URI in the request, as its caller wrote it; empty without a name."""
    ref = params.get("ref")
    named = ref if isinstance(ref, dict) else params
    found = named.get("name") or named.get("uri")
    return found[:_LONGEST_NAME] if isinstance(found, str) else ""


def _invalid_arguments_result(failed: ToolbusError, request: Request, call_id: str) -> Response:
    """Return invalid arguments as a tool's own error, so that models can read them.

    MCP requires this since 2025-11-25; clients of earlier revisions accept such results too.
    """
    reason = {**task_error(failed)["data"], "callId": call_id}
    body: dict[str, Any] = {
        "content": [{"type": "text", "text": failed.reason}],
        "isError": True,
        "_meta": {FAILED: reason},
    }
    if request.family is ProtocolFamily.MODERN:
        body["resultType"] = "complete"
    return result(request.id, msgspec.json.encode(body))


def _url_required(failed: ToolbusError, request: Request) -> Response:
    """Return the error for a server that requires pages to be opened first.

    The caller did not declare that it opens pages, so the message lists the pages.
    """
    pages = " ".join(_pages(failed.data.get("upstream_data")))
    message = f"{failed.reason} Declare elicitation.url, or open the page and retry: {pages}"
    data: Any = {"requiredCapabilities": {"elicitation": {"url": {}}}}
    return error(BAD_REQUEST, MISSING_CAPABILITY, message, request_id=request.id, data=data)


def _pages(upstream_data: Any) -> Iterator[str]:
    pages = upstream_data.get("elicitations") if isinstance(upstream_data, dict) else None
    for page in pages[:_MAX_PAGES] if isinstance(pages, list) else ():
        url = page.get("url") if isinstance(page, dict) else None
        if isinstance(url, str) and len(url) <= _LONGEST_PAGE:
            yield url
