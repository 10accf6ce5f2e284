"""Selection expression of a call. It is validated before the call is made."""

from typing import Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.errors import InvalidError
from toolbus_executor.mcp_messages.request_builder import SELECT

MAX_LENGTH = 1024  # characters

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def selection_of(call: CallAdmitted) -> str:
    """Return the selection expression of a call; empty if there is none. Raises `InvalidError`."""
    if SELECT not in call.extra or call.method != TOOLS_CALL:
        return ""
    meta = _members(call.extra).get("_meta")
    value: Any = msgspec.json.decode(meta).get(SELECT) if meta is not None else None
    return parse_expression(value) if value is not None else ""


def parse_expression(value: Any) -> str:
    """Return the value if it is a valid JMESPath expression. Raises `InvalidError`."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_LENGTH:
        raise InvalidError(
            f"{SELECT} must be a JMESPath expression of 1 to {MAX_LENGTH} characters.", sent=False
        )
    try:
        jmespath.compile(value)
    except RecursionError as error:
        raise InvalidError(
            f"{SELECT} is nested too deeply; simplify the expression.", sent=False
        ) from error
    except (JMESPathError, ValueError) as error:
        why = str(error).partition("\n")[0][:200]
        raise InvalidError(
            f"{SELECT} is not a valid JMESPath expression: {why}", sent=False
        ) from error
    return value
