"""Detection of names that look alike to a person or a model, by a short table (no I/O)."""

import unicodedata
from functools import lru_cache

_ALIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "-": "_", ".": "_"})
_PAIRS = (("rn", "m"), ("vv", "w"))


@lru_cache(maxsize=65_536)
def skeleton(name: str) -> str:
    """Return a form of the name that is equal for all names that look alike.

    The algorithm is that of Unicode TS 39, section 4. The table here is shorter, because most
    letters of the standard's table cannot occur in names.
    """
    bare = unicodedata.normalize("NFKC", name).casefold().translate(_ALIKE)
    for pair, letter in _PAIRS:
        bare = bare.replace(pair, letter)
    return bare
