"""Names of tools and arguments that every client takes, the same at every reading."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2s

from toolbus_common.access.confusables import skeleton

LONGEST_TOOL = 48  # with its server's name it should stay within 64
LONGEST_ARGUMENT = 64
_SUFFIXES = (3, 8, 16)  # bytes of a hash: the first that leads to no name there is


def client_safe(text: str) -> str:
    """Letters, digits, `-` and single `_`; empty when nothing is left."""
    plain = re.sub(r"_{2,}", "_", re.sub(r"[^A-Za-z0-9_-]+", "_", text)).strip("_-")
    return plain if len(plain) <= LONGEST_TOOL else _marked(plain, text, 3)


def tool_names(operations: Sequence[tuple[str, str, str]]) -> list[str]:
    """A name for each (operationId, method, path): its id, else method and path.

    Of several that would look alike one whose very id it is keeps the name; the others end in
    a hash of method and path, so that no name ever changes hands.
    """
    wanted = [client_safe(own) or client_safe(f"{verb}_{path}") for own, verb, path in operations]
    alike = Counter(map(skeleton, wanted))
    literal = Counter(
        skeleton(name) for (own, *_), name in zip(operations, wanted, strict=True) if own == name
    )
    taken = {skeleton(name) for name in wanted}
    names = []
    for (own, verb, path), name in zip(operations, wanted, strict=True):
        shape = skeleton(name)
        if alike[shape] == 1 or (own == name and literal[shape] == 1):
            names.append(name)
        else:
            names.append(_untaken(name, f"{verb} {path}", taken))
    return names


def argument_names(parameters: Iterable[tuple[str, str]]) -> list[str]:
    """A name for each (name, place): the same where clients take it, told apart by the place."""
    taken: set[str] = set()
    names = []
    for name, place in parameters:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_")[:LONGEST_ARGUMENT] or place
        if plain in taken or plain == "body":
            plain = f"{plain[: LONGEST_ARGUMENT - 8]}_{place}"
        if plain in taken:
            plain = _marked(plain, name, 3)
        taken.add(plain)
        names.append(plain)
    return names


def _untaken(name: str, whole: str, taken: set[str]) -> str:
    made = name
    for size in _SUFFIXES:
        made = _marked(name, whole, size)
        if skeleton(made) not in taken:
            break
    taken.add(skeleton(made))
    return made


def _marked(name: str, whole: str, size: int) -> str:
    """Cut, and ending in a hash of the whole."""
    mark = blake2s(whole.encode("utf-8", "replace"), digest_size=size).hexdigest()
    return f"{name[: LONGEST_TOOL - len(mark) - 1].rstrip('_-')}_{mark}"
