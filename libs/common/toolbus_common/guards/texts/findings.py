"""Findings of a guard in texts, and the interface of the detectors that make them (no I/O)."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class Finding(Struct, frozen=True):
    """A match of a rule in one text.

    `text` is the index of the text, and `start` and `end` are positions in it. `score` is the
    certainty of the match, from 0 to 1.
    """

    rule: str
    text: int
    start: int
    end: int
    score: float = 1.0


class Detector(Protocol):
    """A detector of a built-in guard.

    Its time is linear in the length of the texts, whatever they contain.
    """

    @property
    def version(self) -> str:
        """The version of its rules: equal versions find the same in equal texts."""
        ...

    def find(self, texts: Sequence[str]) -> list[Finding]:
        """Return the matches in the texts of one document, sorted by position, without overlap."""
        ...
