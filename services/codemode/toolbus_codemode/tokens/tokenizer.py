"""Token counts with the o200k vocabulary, or an estimate if tiktoken is not installed.

Loading the vocabulary takes half a second and 90 MB, so it is loaded at the first use, in the
separate process of `counter_process`. OpenAI publishes the file with tiktoken under the MIT
licence. tiktoken downloads it; this package contains a compressed copy.
"""

import lzma
from base64 import b64decode
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Protocol

VOCABULARY = "o200k_base"
ESTIMATE = "bytes/4"  # close for English and JSON
PIECE = 100_000  # characters; a longer run of spaces overflows the stack of tiktoken's expression
# Splits a text into words, which are encoded one by one; a test compares it with tiktoken's.
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _SHORT + r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    + _SHORT
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
Encode = Callable[[str], list[int]]


class Counter(Protocol):
    """Counter of tokens."""

    counted_by: str

    def of(self, text: str) -> int:
        """Return the number of tokens of a text."""
        ...


class Tokens:
    """Token counter; `counted_by` names the vocabulary or the estimate."""

    def __init__(self, package: str = "tiktoken") -> None:
        self._encode = _encoder(package)
        self.counted_by = ESTIMATE if self._encode is None else VOCABULARY

    def of(self, text: str) -> int:
        """Return the number of tokens of a text; special tokens count as plain text.

        Texts are counted in pieces of `PIECE` characters; each piece adds at most a few tokens.
        """
        whole = text.encode(errors="replace")
        if self._encode is None:
            return (len(whole) + 3) // 4
        clean = whole.decode()
        starts = range(0, len(clean), PIECE)
        return sum(len(self._encode(clean[start : start + PIECE])) for start in starts)


def vocabulary() -> bytes:
    """Return the published file; each line contains a token in base64 and its rank."""
    return lzma.decompress(files(__package__).joinpath(f"{VOCABULARY}.tiktoken.xz").read_bytes())


@cache
def _encoder(package: str) -> Encode | None:
    try:
        encoding = import_module(package).Encoding
    except ImportError:
        return None
    lines = map(bytes.split, vocabulary().splitlines())
    ranks = {b64decode(token): int(rank) for token, rank in lines}
    made = encoding(VOCABULARY, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    ordinary: Encode = made.encode_ordinary
    return ordinary
