"""The rules of the detector: patterns in YAML files, compiled by RE2 (no I/O after loading)."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import re2
import yaml
from msgspec import Struct

_FOLDER = Path(__file__).parent / "rules"
# What a space and a percent sign stand for in a pattern (see rules/en.yaml).
_SEPARATORS = r"[\s,:;*_\"'`()\[\]<>~|-]+"
_WORDS = r"(?:[^\s.!?\x00]+" + _SEPARATORS + "){0,"
_LARGEST_AUTOMATON = 64 << 20


class Rule(Struct, frozen=True):
    """A kind of finding: its score in any text, and its score in the definition of a tool.

    With `directive`, the finding is the whole sentence; with `block`, the whole element. A
    `quotable` rule is less certain where a text about attacks quotes a phrase.
    """

    id: str
    about: str
    score: float
    definition: float
    directive: bool = False
    quotable: bool = False
    block: bool = False
    languages: tuple[str, ...] = ("en",)


class Patterns:
    """The compiled patterns of some rules: one automaton for all, and one for each."""

    def __init__(self, patterns: Sequence[tuple[Rule, str]]) -> None:
        self._all = re2.Set.SearchSet(_options())
        for _, pattern in patterns:
            self._all.Add(pattern)
        if patterns:
            self._all.Compile()
        self._each = [(rule, pattern) for rule, pattern in patterns]
        self._compiled: dict[int, Any] = {}

    def candidates(self, text: bytes) -> list[int]:
        """Return the numbers of the patterns that match somewhere in a text."""
        return sorted(self._all.Match(text) or ()) if self._each else []

    def rule(self, number: int) -> Rule:
        """Return the rule of a pattern."""
        return self._each[number][0]

    def matches(self, number: int, text: bytes) -> Iterable[tuple[int, int]]:
        """Return the places of a pattern in a text, in bytes."""
        if (pattern := self._compiled.get(number)) is None:
            pattern = re2.compile(self._each[number][1], _options())
            self._compiled[number] = pattern
        return (found.span() for found in pattern.finditer(text))


@lru_cache(maxsize=1)
def all_rules() -> tuple[tuple[Rule, tuple[str, ...]], ...]:
    """Return every rule of the data files with its patterns."""
    rules: dict[str, Rule] = {}
    patterns: dict[str, list[str]] = {}
    for name in ("en.yaml", "markup.yaml", "languages.yaml"):
        for entry in yaml.safe_load((_FOLDER / name).read_text(encoding="utf-8")):
            own = {key: value for key, value in entry.items() if key != "patterns"}
            languages = tuple(own.pop("languages", ("en",)))
            known = rules.get(entry["id"])
            if known is None:
                own.setdefault("definition", own["score"])
                rules[entry["id"]] = Rule(**own, languages=languages)
            else:
                rules[known.id] = Rule(
                    **{each: getattr(known, each) for each in known.__struct_fields__}
                    | {"languages": known.languages + languages}
                )
            patterns.setdefault(entry["id"], []).extend(map(_expanded, entry["patterns"]))
    return tuple((rule, tuple(patterns[name])) for name, rule in rules.items())


@lru_cache(maxsize=16)
def patterns_of(names: frozenset[str]) -> Patterns:
    """Return the compiled patterns of the named rules."""
    return Patterns(
        [
            (rule, pattern)
            for rule, patterns in all_rules()
            if rule.id in names
            for pattern in patterns
        ]
    )


@lru_cache(maxsize=1)
def data_digest() -> str:
    """Return a short digest of all rules."""
    data = repr(all_rules()).encode()
    return hashlib.sha256(data).hexdigest()[:12]


def _expanded(pattern: str) -> str:
    """Replace the spaces and word gaps of a pattern, except in character classes."""
    parts: list[str] = []
    position, in_class = 0, False
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            parts.append(pattern[position : position + 2])
            position += 2
            continue
        if char in "[]":
            in_class = char == "["
        if char == "%" and not in_class and pattern[position + 1 : position + 2].isdigit():
            parts.append(_WORDS + pattern[position + 1] + "}")
            position += 2
            continue
        plain = in_class or pattern[position + 1 : position + 2] in ("?", "*", "+")
        parts.append(_SEPARATORS if char == " " and not plain else char)
        position += 1
    return "".join(parts)


def _options() -> Any:
    options = re2.Options()
    options.max_mem = _LARGEST_AUTOMATON
    options.log_errors = False
    return options
