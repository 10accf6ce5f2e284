"""Tokens as models with the o200k vocabulary count them; an estimate where it is not installed.

The vocabulary takes a second and 150 MB to load, so it is loaded by whoever counts first; the
service has it loaded by a process of its own (`counting`).
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Protocol

VOCABULARY = "o200k_base"
ESTIMATE = "bytes/4"  # near for English and JSON, and called what it is
Encode = Callable[[str], list[int]]


class Counter(Protocol):
    """Whoever counts texts."""

    counted_by: str

    def of(self, text: str) -> int:
        """How many tokens a text has."""
        ...


class Tokens:
    """Counts texts. `counted_by` names the vocabulary, or says that it is an estimate."""

    def __init__(self, package: str = "bpe_openai") -> None:
        self._encode = _encoder(package)
        self.counted_by = ESTIMATE if self._encode is None else VOCABULARY

    def of(self, text: str) -> int:
        """How many tokens a text has. Words that mean something to a model are only text here."""
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
