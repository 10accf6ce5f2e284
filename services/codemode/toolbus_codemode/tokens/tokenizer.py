"""Token counts with the o200k vocabulary, or an estimate if it is not installed.

Loading the vocabulary takes a second and 150 MB, so it is loaded at the first use, in the separate
process of `counter_process`.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Protocol

VOCABULARY = "o200k_base"
ESTIMATE = "bytes/4"  # close for English and JSON
Encode = Callable[[str], list[int]]


class Counter(Protocol):
    """Counter of tokens."""

    counted_by: str

    def of(self, text: str) -> int:
        """Return the number of tokens of a text."""
        ...


class Tokens:
    """Token counter; `counted_by` names the vocabulary or the estimate."""

    def __init__(self, package: str = "bpe_openai") -> None:
        self._encode = _encoder(package)
        self.counted_by = ESTIMATE if self._encode is None else VOCABULARY

    def of(self, text: str) -> int:
        """Return the number of tokens of a text. Special tokens count as plain text."""
        whole = text.encode(errors="replace")
        if self._encode is None:
            return (len(whole) + 3) // 4
        return len(self._encode(whole.decode()))


@cache
def _encoder(package: str) -> Encode | None:
    try:
        encoding = import_module(package).get_encoding(VOCABULARY)
    except (ImportError, OSError):
        return None
    ordinary: Encode = encoding.encode_ordinary
    return ordinary
