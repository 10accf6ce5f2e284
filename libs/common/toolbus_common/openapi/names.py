"""Names of tools and arguments that every client accepts and that remain stable."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2s

from toolbus_common.confusables import skeleton

LONGEST_TOOL = 48  # characters; with the server's name at most 64
LONGEST_ARGUMENT = 64
_SUFFIXES = (3, 8, 16)  # bytes of a hash; the first that gives an unused name is used


def client_safe(text: str) -> str:
    """Return a text reduced to letters, digits, `-` and single `_`; empty if nothing is left."""
    plain = re.sub(r"_{2,}", "_", re.sub(r"[^A-Za-z0-9_-]+", "_", text)).strip("_-")
    return plain if len(plain) <= LONGEST_TOOL else _with_hash(plain, text, 3)


def tool_names(operations: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return a tool name for each operation, given as (operationId, method, path).

    The name is derived from the operationId, or from method and path if there is none. If several
    names look alike, an operation whose id is exactly that name keeps the name. The other names end
    in a hash of method and path, so that a name never refers to another operation.
    """
    candidates = [
        client_safe(own) or client_safe(f"{verb}_{path}") for own, verb, path in operations
    ]
    alike = Counter(map(skeleton, candidates))
    literal = Counter(
        skeleton(name)
        for (own, *_), name in zip(operations, candidates, strict=True)
        if own == name
    )
    taken = {skeleton(name) for name in candidates}
    names = []
    for (own, verb, path), name in zip(operations, candidates, strict=True):
        shape = skeleton(name)
        if alike[shape] == 1 or (own == name and literal[shape] == 1):
            names.append(name)
        else:
            names.append(_unique(name, f"{verb} {path}", taken))
    return names


def argument_names(parameters: Iterable[tuple[str, str]]) -> list[str]:
    """Return a unique argument name for each parameter, given as (name, location)."""
    taken: set[str] = set()
    names = []
    for name, location in parameters:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_")[:LONGEST_ARGUMENT] or location
        if plain in taken or plain == "body":
            plain = f"{plain[: LONGEST_ARGUMENT - 8]}_{location}"
        if plain in taken:
            plain = _with_hash(plain, name, 3)
        taken.add(plain)
        names.append(plain)
    return names


def _unique(name: str, whole: str, taken: set[str]) -> str:
    made = name
    for size in _SUFFIXES:
        made = _with_hash(name, whole, size)
        if skeleton(made) not in taken:
            break
    taken.add(skeleton(made))
    return made


def _with_hash(name: str, whole: str, size: int) -> str:
    """Return a shortened name that ends in a hash of `whole`."""
    mark = blake2s(whole.encode("utf-8", "replace"), digest_size=size).hexdigest()
    return f"{name[: LONGEST_TOOL - len(mark) - 1].rstrip('_-')}_{mark}"
