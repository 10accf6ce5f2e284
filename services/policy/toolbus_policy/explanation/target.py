"""The call that a name and arguments stand for, as ingress would send it (no I/O)."""

import secrets
from collections.abc import Mapping
from time import time
from typing import Any

from msgspec import Struct

from toolbus_common import strict_json
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_names import Names, is_own_name
from toolbus_common.access.tool_patterns import SEPARATOR as TOOL_SEPARATOR
from toolbus_common.contracts import TOOLS_CALL, CallRequested, Listing, ProtocolFamily
from toolbus_common.contracts.model_calls import CHAT, SEPARATOR, ModelCall
from toolbus_common.errors import InvalidError, ToolbusError, UnknownToolError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.model_api.routing import targets_of, unknown_model

LONGEST_NAME = 512
LARGEST_ARGUMENTS = 1 << 20
SECONDS = 60.0


class Target(Struct, frozen=True):
    """The call that a name stands for. `error` is set if ingress itself would deny the call."""

    call: CallRequested
    is_model: bool
    error: ToolbusError | None = None


def names_of(snapshot: ConfigSnapshot, catalogue: Mapping[str, Listing]) -> Names:
    """Return the names that clients know, as ingress computes them."""
    servers = snapshot.configuration.servers
    listings = [catalogue[each] for each in (BUILT_IN, *servers) if each in catalogue]
    return Names(listings, servers)


def target_of(
    name: str, arguments: str, principal: Principal, snapshot: ConfigSnapshot, names: Names
) -> Target:
    """Return the call that a name stands for.

    Raises:
        InvalidError: the name is too long, or the arguments are not an object in strict JSON.

    """
    if not name or len(name) > LONGEST_NAME:
        raise InvalidError(
            f"The name must have 1 to {LONGEST_NAME} characters; enter that of a tool or model."
        )
    body = _object(arguments)
    declared = snapshot.configuration
    provider, separator, _ = name.partition(SEPARATOR)
    if name in declared.models or (separator and TOOL_SEPARATOR not in provider):
        return _model(name, body, principal, snapshot)
    server, tool = names.meant(name)
    call = _call(server, tool, TOOLS_CALL, strict_json.dump(body))
    if not server or not is_own_name(tool):
        return Target(call, is_model=False, error=UnknownToolError.named(name[:128], TOOLS_CALL))
    return Target(call, is_model=False)


def _model(
    name: str, body: dict[str, Any], principal: Principal, snapshot: ConfigSnapshot
) -> Target:
    declared = snapshot.configuration
    alias = name if name in declared.models else ""
    # The same content selects the same target of an alias each time.
    sent = strict_json.dump({"model": name, **body})
    request = ModelCall(alias=alias, output=_limit(body), tools=_count(body.get("tools")))
    try:
        first = targets_of(name, principal, declared, (), name.encode())[0]
    except ToolbusError:
        provider, _, model = name.partition(SEPARATOR)
        declared_targets = declared.models.get(name)
        if declared_targets:
            provider, model = declared_targets[0].provider, declared_targets[0].model
        return Target(_call(provider, model, CHAT, sent), is_model=True, error=unknown_model(name))
    call = _call(first.provider, first.model, CHAT, sent, request.encode())
    return Target(call, is_model=True)


def _call(server: str, tool: str, method: str, arguments: bytes, extra: str = "") -> CallRequested:
    return CallRequested(
        call_id=secrets.token_hex(16),
        reply_to="",
        server=server,
        tool=tool,
        key_digest="",
        family=ProtocolFamily.MODERN,
        deadline=time() + SECONDS,
        traceparent="",
        method=method,
        extra=extra,
        arguments=arguments,
    )


def _object(text: str) -> dict[str, Any]:
    if len(text) > LARGEST_ARGUMENTS:
        raise InvalidError(
            f"The arguments have more than {LARGEST_ARGUMENTS} characters; shorten them."
        )
    try:
        found = strict_json.parse(text.encode())
    except (strict_json.StrictJSONError, UnicodeEncodeError) as error:
        raise InvalidError(f"The arguments are not strict JSON: {error}. Correct them.") from error
    if not isinstance(found, dict):
        raise InvalidError("The arguments must be a JSON object, such as {}.")
    return found


def _limit(body: Mapping[str, Any]) -> int | None:
    """Return the limit of output tokens in the body of a model request."""
    for field in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = body.get(field)
        if type(value) is int and value >= 0:
            return value
    return None


def _count(tools: Any) -> int:
    return len(tools) if isinstance(tools, list) else 0
