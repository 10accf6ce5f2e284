"""Search of tools: BM25 over names, servers, and descriptions with parameters.

Each field has separate statistics, so that a long description does not outweigh a name.

If an embedding model is loaded, semantic similarity counts as much as the words.

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
from toolbus_codemode.catalog.signatures import properties
from toolbus_common.model_api.embeddings import EmbeddingModel

K1, B = 1.2, 0.75
MIN_SIMILARITY = 0.25  # texts with a lower similarity are unrelated
WEIGHTS = (3, 2, 1)  # of name, server, and description with parameters
LONGEST_WORD = 64  # longer strings are no words and would fill the cache of stems
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# The name of a file, whose words are in no description of a tool.
_FILE = re.compile(
    r"\b[\w-]{1,64}\.(?:csv|docx?|html?|ini|json|log|md|pdf|py|toml|txt|xml|ya?ml)\b"
)
_STOP = frozenset(
    ["a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "is", "it", "me", "my", "of",
     "on", "or", "that", "the", "their", "this", "to", "with"]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Document:
    """Word counts of a tool by field, and its embedding if a model is loaded."""

    fields: tuple[Mapping[str, int], ...]
    vector: Any = None


class DocumentCache:
    """Cache of the documents of all tools, shared by all callers."""

    # Maximum characters of all texts. A larger cache is cleared, because a server may change its
    # descriptions any number of times.
    LARGEST_KEPT = 32 << 20
    AT_ONCE = 8  # tools per turn of the event loop

    def __init__(self, meaning: EmbeddingModel | None = None) -> None:
        self._model = meaning
        self._documents: dict[str, Document] = {}
        self.size = 0

    async def index(self, tools: Iterable[Tool]) -> "Index":
        """Return an index of the tools; the event loop runs after every few tools."""
        made = Index(self._model)
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
            vector = self._model.of(_embedding_text(tool)) if self._model else None
            found = self._documents[key] = _document(tool, vector)
        return found


class Index:
    """Search index over words, and embeddings if a model is loaded."""

    def __init__(self, meaning: EmbeddingModel | None = None) -> None:
        self._model = meaning
        self._tools: list[Tool] = []
        self._fields = tuple(_Field(weight) for weight in WEIGHTS)
        self._vectors: list[Any] = []

    def add(self, tool: Tool, document: Document) -> None:
        """Add one tool."""
        self._tools.append(tool)
        self._vectors.append(document.vector)
        for field, counts in zip(self._fields, document.fields, strict=True):
            field.add(counts)

    def best(self, query: str, maximum: int) -> list[Tool]:
        """Return at most `maximum` matching tools, the best match first."""
        scores = self._by_words(query)
        if self._model is not None:
            scores = fused(scores, self._model.alike(self._vectors, query))
        ordered = sorted(
            scores, key=lambda position: (-scores[position], self._tools[position].path)
        )
        return [self._tools[position] for position in ordered[:maximum]]

    def _by_words(self, query: str) -> dict[int, float]:
        """Return the scores of the tools that contain a word of the query, by tool index."""
        scores: dict[int, float] = {}
        for word in words(_FILE.sub(" read file ", query)):
            for field in self._fields:
                field.score(word, scores)
        return scores


class _Field:
    """Word counts of one field of all tools."""

    def __init__(self, weight: int) -> None:
        self._weight = weight
        self._lengths: list[int] = []
        self._total = 0
        self._found: dict[str, list[tuple[int, int]]] = {}  # word -> (index of the tool, count)

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the word counts of the next tool."""
        for word, count in counts.items():
            self._found.setdefault(word, []).append((len(self._lengths), count))
        self._lengths.append(sum(counts.values()))
        self._total += self._lengths[-1]

    def score(self, word: str, scores: dict[int, float]) -> None:
        """Add the weighted BM25 score of a word to `scores`, which are by tool index."""
        places = self._found.get(word, ())
        tools = len(self._lengths)
        weight = self._weight * log(1 + (tools - len(places) + 0.5) / (len(places) + 0.5))
        for position, count in places:
            norm = K1 * (1 - B + B * self._lengths[position] * tools / self._total)
            gained = weight * count * (K1 + 1) / (count + norm)
            scores[position] = scores.get(position, 0.0) + gained


def fused(scores: dict[int, float], alike: list[float]) -> dict[int, float]:
    """Return the sum of normalized word scores and similarities, by tool index.

    The best word score becomes 1. For a tool without a word score, a similarity below
    `MIN_SIMILARITY` is ignored.
    """
    maximum = max(scores.values(), default=1.0)
    both = {position: score / maximum for position, score in scores.items()}
    for position, nearness in enumerate(alike):
        if position in both or nearness >= MIN_SIMILARITY:
            both[position] = both.get(position, 0.0) + nearness
    return both


def words(text: str) -> list[str]:
    """Return the stemmed words of a text; identifiers are split into their words."""
    found = (each for each in _WORDS.findall(text) if len(each) <= LONGEST_WORD)
    return [word for each in found if (word := _word(each))]


@lru_cache(50_000)
def _word(found: str) -> str:
    """Return the stem in lower case, or an empty text for a stop word."""
    word = found.lower()
    return "" if word in _STOP else _stem(word)


def _embedding_text(tool: Tool) -> str:
    """Return the text that represents a tool in its embedding."""
    return f"{' '.join(_WORDS.findall(f'{tool.server} {tool.name}'))}. {tool.description}"


def _document(tool: Tool, vector: Any) -> Document:
    text = f"{tool.description} {' '.join(properties(tool.schema))}"
    fields = (tool.name, tool.server, text)
    return Document(tuple(Counter(words(each)) for each in fields), vector)


def _stem(word: str) -> str:
    for reply in ("ies", "ing", "es", "ed", "s"):
        if word.endswith(reply) and len(word) - len(reply) >= 3:  # noqa: PLR2004
            return word.removesuffix(reply) + ("y" if reply == "ies" else "")
    return word.removesuffix("e") if len(word) > 4 else word  # noqa: PLR2004
