"""Parser of scopes in the metadata and responses of other servers."""

import re
from typing import Any

MAX_SCOPES, LONGEST_SCOPE = 64, 200
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def scopes_in(value: Any) -> tuple[str, ...]:
    """Return the distinct valid scopes in a list, at most `MAX_SCOPES`; empty for other values."""
    listed = value if isinstance(value, list) else []
    valid = (
        each
        for each in listed
        if isinstance(each, str) and len(each) <= LONGEST_SCOPE and _SCOPE.fullmatch(each)
    )
    return tuple(dict.fromkeys(valid))[:MAX_SCOPES]
