"""Search among tools: BM25 over names, descriptions and parameters. Stateless, of one caller.

Where a model is loaded, nearness in meaning counts as much as the words do.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009).
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Any

from toolbus_codemode.catalog.namespace import Tool
from toolbus_codemode.catalog.search.embeddings import Meaning
from toolbus_codemode.catalog.signatures import properties

K1, B = 1.2, 0.75
LEAST_ALIKE = 0.25  # below this two texts have no more in common than any two
NAME_WEIGHT, SERVER_WEIGHT = 3, 2  # a word in a name says more than one in a description
LONGEST_WORD = 64  # what is longer is no word, and words are remembered
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_STOP = frozenset(
    ["a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "is", "it", "me", "my", "of",
     "on", "or", "that", "the", "their", "this", "to", "with"]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Document:
    """A tool's words, each as often as it counts, and what it means as a vector, if asked for."""

    counts: Mapping[str, int]
    length: int
    vector: Any = None


class Library:
    """The documents of all tools, each made once, whoever may see it."""

    # Characters of their texts. What is forgotten is made again: a server may describe its tools
    # anew all day.
    LARGEST_KEPT = 32 << 20
    AT_ONCE = 8  # a slice of work that holds nobody up

    def __init__(self, meaning: Meaning | None = None) -> None:
        self._meaning = meaning
        self._documents: dict[str, Document] = {}
        self.size = 0

    async def index(self, tools: Iterable[Tool]) -> "Index":
        """An index of some tools, made a few in each turn of the event loop."""
        made = Index(self._meaning)
        for number, tool in enumerate(tools, 1):
            made.add(tool, self._document(tool))
            if number % self.AT_ONCE == 0:
                await asyncio.sleep(0)
        return made

    def _document(self, tool: Tool) -> Document:
        key = repr((tool.name, tool.server, tool.description, [*properties(tool.schema)]))
        found = self._documents.get(key)
        if found is None:
            if self.size + len(key) > self.LARGEST_KEPT:
                self._documents.clear()
                self.size = 0
            self.size += len(key)
            vector = self._meaning.of(_told(tool)) if self._meaning else None
            found = self._documents[key] = _document(tool, vector)
        return found


class Index:
    """Tools, ready to be asked for by words, and by meaning where a model is loaded."""

    def __init__(self, meaning: Meaning | None = None) -> None:
        self._meaning = meaning
        self._tools: list[Tool] = []
        self._lengths: list[int] = []
        self._vectors: list[Any] = []
        self._found: dict[str, list[tuple[int, int]]] = {}  # word -> (tool's place, count)

    def add(self, tool: Tool, document: Document) -> None:
        """One tool more."""
        place = len(self._tools)
        self._tools.append(tool)
        self._lengths.append(document.length)
        self._vectors.append(document.vector)
        for word, count in document.counts.items():
            self._found.setdefault(word, []).append((place, count))

    def best(self, query: str, most: int) -> list[Tool]:
        """The tools that fit a query best, best first; none when nothing fits."""
        scores = self._by_words(query)
        if self._meaning is not None:
            scores = fused(scores, self._meaning.alike(self._vectors, query))
        ordered = sorted(scores, key=lambda place: (-scores[place], self._tools[place].path))
        return [self._tools[place] for place in ordered[:most]]

    def _by_words(self, query: str) -> dict[int, float]:
        """How well each tool fits that has any of the words, by its place."""
        scores: dict[int, float] = {}
        mean = sum(self._lengths) / max(1, len(self._lengths)) or 1
        for word in words(query):
            places = self._found.get(word, ())
            weight = log(1 + (len(self._tools) - len(places) + 0.5) / (len(places) + 0.5))
            for place, count in places:
                norm = K1 * (1 - B + B * self._lengths[place] / mean)
                gained = weight * count * (K1 + 1) / (count + norm)
                scores[place] = scores.get(place, 0.0) + gained
        return scores


def fused(scores: dict[int, float], alike: list[float]) -> dict[int, float]:
    """Both in one: words as a share of the best, and nearness; what is neither is left out."""
    most = max(scores.values(), default=1.0)
    both = {place: score / most for place, score in scores.items()}
    for place, nearness in enumerate(alike):
        if place in both or nearness >= LEAST_ALIKE:
            both[place] = both.get(place, 0.0) + nearness
    return both


def words(text: str) -> list[str]:
    """The words of a text, without their commonest endings; names are split where they join."""
    found = (each for each in _WORDS.findall(text) if len(each) <= LONGEST_WORD)
    return [word for each in found if (word := _word(each))]


@lru_cache(50_000)
def _word(found: str) -> str:
    """What is looked for: the lower case without its ending; nothing for the commonest words."""
    word = found.lower()
    return "" if word in _STOP else _stem(word)


def _told(tool: Tool) -> str:
    """What of a tool is read for its meaning."""
    return f"{' '.join(_WORDS.findall(f'{tool.server} {tool.name}'))}. {tool.description}"


def _document(tool: Tool, vector: Any) -> Document:
    counts: Counter[str] = Counter(words(tool.description))
    counts.update(words(" ".join(properties(tool.schema))))
    for text, weight in ((tool.name, NAME_WEIGHT), (tool.server, SERVER_WEIGHT)):
        for word in words(text):
            counts[word] += weight
    return Document(counts, counts.total(), vector)


def _stem(word: str) -> str:
    for ending in ("ies", "ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:  # noqa: PLR2004
            return word.removesuffix(ending) + ("y" if ending == "ies" else "")
    return word.removesuffix("e") if len(word) > 4 else word  # noqa: PLR2004
