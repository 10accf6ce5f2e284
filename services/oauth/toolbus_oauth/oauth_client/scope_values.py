"""Scopes in the metadata and responses of other servers. Pure."""

import re
from typing import Any

MAX_SCOPES, LONGEST_SCOPE = 64, 200
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def scopes_in(value: Any) -> tuple[str, ...]:
    """Return the valid scopes of a list."""
    listed = value if isinstance(value, list) else []
    valid = (
        each
        for each in listed
        if isinstance(each, str) and len(each) <= LONGEST_SCOPE and _SCOPE.fullmatch(each)
    )
    return tuple(dict.fromkeys(valid))[:MAX_SCOPES]
