"""How a request failed, in the words of its era: a server's own error stays what it was."""

from toolbus_common.contracts import Era
from toolbus_common.errors import ToolbusError, UnknownToolError, UpstreamRefusedError
from toolbus_ingress.eras import Request
from toolbus_ingress.jsonrpc import (
    BAD_REQUEST,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    NO_RESOURCE,
    OK,
    Response,
    error,
    failure,
)

_STATUS = {MISSING_CAPABILITY: BAD_REQUEST, METHOD_NOT_FOUND: 404}


def told(failed: ToolbusError, request: Request, call_id: str) -> Response:
    """The failure of a request: a server's own error as it is, but for what the era renames."""
    code = failed.data.get("upstream_code") if isinstance(failed, UpstreamRefusedError) else None
    modern = request.era is Era.MODERN
    if isinstance(failed, UnknownToolError) and request.method.startswith("resources/"):
        code = NO_RESOURCE
    if not isinstance(code, int):
        return failure(failed, request.id, call_id)
    if code == NO_RESOURCE and modern:
        code = INVALID_PARAMS
    elif code == INVALID_PARAMS and request.method == "resources/read" and not modern:
        code = NO_RESOURCE
    status = _STATUS.get(code, OK) if modern else OK
    data = failed.data.get("upstream_data")
    if isinstance(failed, UnknownToolError):
        data = {"uri": request.params.get("uri")}
    return error(status, code, failed.reason, request_id=request.id, data=data)
