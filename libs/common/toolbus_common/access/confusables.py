"""Names that look alike to a person or a model: pure, with a short table of our own."""

import unicodedata
from functools import lru_cache

_ALIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "-": "_", ".": "_"})
_PAIRS = (("rn", "m"), ("vv", "w"))


@lru_cache(maxsize=65_536)
def skeleton(name: str) -> str:
    """What is left of a name when everything easily mistaken is the same: equal means confusable.

    Source of the idea: Unicode TS 39, 4; the table there holds letters names cannot have.
    """
    bare = unicodedata.normalize("NFKC", name).casefold().translate(_ALIKE)
    for pair, letter in _PAIRS:
        bare = bare.replace(pair, letter)
    return bare
