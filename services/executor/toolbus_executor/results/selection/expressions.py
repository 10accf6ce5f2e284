"""The expression a caller sends along: read before a call is made, not after it."""

from typing import Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.errors import InvalidError
from toolbus_executor.mcp_messages.request_builder import SELECT

LONGEST = 1024  # characters

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def selection_of(call: CallAdmitted) -> str:
    """The expression a call brings; empty where it brings none. Raises `InvalidError`."""
    if SELECT not in call.extra or call.method != TOOLS_CALL:
        return ""
    meta = _members(call.extra).get("_meta")
    told: Any = msgspec.json.decode(meta).get(SELECT) if meta is not None else None
    return checked(told) if told is not None else ""


def checked(told: Any) -> str:
    """An expression that can be read. Raises `InvalidError`."""
    if not isinstance(told, str) or not 0 < len(told) <= LONGEST:
        raise InvalidError(f"{SELECT} is a JMESPath of 1 to {LONGEST} characters.", sent=False)
    try:
        jmespath.compile(told)
    except RecursionError as error:
        raise InvalidError(f"{SELECT} is nested too deeply.", sent=False) from error
    except (JMESPathError, ValueError) as error:
        why = str(error).partition("\n")[0][:200]
        raise InvalidError(f"{SELECT} is no JMESPath: {why}", sent=False) from error
    return told
