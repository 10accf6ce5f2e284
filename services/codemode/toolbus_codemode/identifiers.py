"""What a program calls servers and tools: names a language takes, each leading back to one tool."""

import keyword
import re
from collections.abc import Iterable

_OTHER = re.compile(r"[^0-9A-Za-z_]+")
# Reserved in Starlark beside Python's own words, and what the programs' own globals are called.
_TAKEN = frozenset({"load", "result", "parallel", "try_call", "call", "print", "json", "struct"})


def identifier(name: str) -> str:
    """A name as an identifier: `get-issue` becomes `get_issue`, `2fa` becomes `_2fa`."""
    made = _OTHER.sub("_", name).strip("_") or "_"
    if made[0].isdigit():
        made = f"_{made}"
    return f"{made}_" if keyword.iskeyword(made) or made in _TAKEN else made


def distinct(names: Iterable[str]) -> dict[str, str]:
    """Identifier -> name, for names of one namespace; of equal ones the later is numbered."""
    found: dict[str, str] = {}
    for name in sorted(names):
        made = wanted = identifier(name)
        number = 2
        while made in found:
            made, number = f"{wanted}_{number}", number + 1
        found[made] = name
    return found
