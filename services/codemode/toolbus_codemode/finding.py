"""Search among tools: BM25 over names, descriptions and parameters. Stateless, of one caller.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009).
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import log

from toolbus_codemode.shelf import Tool
from toolbus_codemode.stubs import properties

K1, B = 1.2, 0.75
NAME_WEIGHT, SERVER_WEIGHT = 3, 2  # a word in a name says more than one in a description
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_STOP = frozenset(
    ["a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "is", "it", "me", "my", "of",
     "on", "or", "that", "the", "their", "this", "to", "with"]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Document:
    tool: Tool
    counts: Counter[str]
    length: int


class Index:
    """Tools, ready to be asked for by words."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._documents = [_document(tool) for tool in tools]
        self._mean = sum(d.length for d in self._documents) / max(1, len(self._documents))
        seen: Counter[str] = Counter()
        for document in self._documents:
            seen.update(document.counts.keys())
        count = len(self._documents)
        self._weights = {
            word: log(1 + (count - number + 0.5) / (number + 0.5)) for word, number in seen.items()
        }

    def best(self, query: str, most: int) -> list[Tool]:
        """The tools that fit a query best, best first; none when no word is known."""
        wanted = [word for word in words(query) if word in self._weights]
        scored = [(self._score(document, wanted), document.tool) for document in self._documents]
        found = sorted((each for each in scored if each[0] > 0), key=lambda e: (-e[0], e[1].path))
        return [tool for _, tool in found[:most]]

    def _score(self, document: _Document, wanted: list[str]) -> float:
        norm = K1 * (1 - B + B * document.length / self._mean) if self._mean else K1
        return sum(
            self._weights[word] * (count * (K1 + 1)) / (count + norm)
            for word in wanted
            if (count := document.counts.get(word, 0))
        )


def words(text: str) -> list[str]:
    """The words of a text, without their commonest endings; names are split where they join."""
    return [_stem(word) for each in _WORDS.findall(text) if (word := each.lower()) not in _STOP]


def _document(tool: Tool) -> _Document:
    counts: Counter[str] = Counter()
    for text, weight in (
        (tool.name, NAME_WEIGHT), (tool.server, SERVER_WEIGHT), (tool.description, 1),
        (" ".join(properties(tool.schema)), 1),
    ):  # fmt: skip
        for word in words(text):
            counts[word] += weight
    return _Document(tool, counts, counts.total())


def _stem(word: str) -> str:
    for ending in ("ies", "ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:  # noqa: PLR2004
            return word.removesuffix(ending) + ("y" if ending == "ies" else "")
    return word.removesuffix("e") if len(word) > 4 else word  # noqa: PLR2004
