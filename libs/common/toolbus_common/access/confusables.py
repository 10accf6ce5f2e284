"""Detect names that look alike to a person or a model, with a short table. Pure."""

import unicodedata
from functools import lru_cache

_ALIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "-": "_", ".": "_"})
_PAIRS = (("rn", "m"), ("vv", "w"))


@lru_cache(maxsize=65_536)
def skeleton(name: str) -> str:
    """Return a form of the name that is equal for confusable names.

    Based on Unicode TS 39, section 4; its table has letters that names cannot contain.
    """
    bare = unicodedata.normalize("NFKC", name).casefold().translate(_ALIKE)
    for pair, letter in _PAIRS:
        bare = bare.replace(pair, letter)
    return bare
